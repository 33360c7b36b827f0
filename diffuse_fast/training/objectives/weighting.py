"""How much the times of an objective count: weights of the error of the data prediction, ‖x0 − x̂0‖², by signal to noise.

In these terms the squared error of ε counts SNR, that of v SNR + 1, and L_simple is that of whatever is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...errors import ArgumentError

# SNR (B,) float64 -> weight of ‖x0 − x̂0‖² (B,).
Weighting = Callable[[Tensor], Tensor]


def _above_zero(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ArgumentError(f"{name} is {value!r}; it must be above 0 and finite.")


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, γ) (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv:2303.09556, eq. 8): for ε
    min(SNR, γ)/SNR, for v min(SNR, γ)/(SNR + 1)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _above_zero("gamma", self.gamma)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)


@dataclass(frozen=True)
class P2:
    """1/(k + SNR)^γ of ε's error (Choi et al. 2022, "Perception Prioritized Training of Diffusion Models", arXiv:2204.00227,
    eq. 8)."""

    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self) -> None:
        _above_zero("gamma", self.gamma)
        _above_zero("k", self.k)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr / (self.k + snr) ** self.gamma


@dataclass(frozen=True)
class EDM:
    """λ(σ) = (σ² + sigma_data²)/(σ·sigma_data)² (Karras et al. 2022, arXiv:2206.00364, Table 1), with which the error of the raw
    network F counts the same at every σ."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _above_zero("sigma_data", self.sigma_data)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr + self.sigma_data**-2  # σ² is 1/SNR
