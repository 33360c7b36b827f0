"""Weightings of an objective over time: weights of the error of the data prediction, ‖x0 − x̂0‖², as functions of SNR.

In these terms an unweighted error of ε has the weight SNR, and one of v the weight SNR + 1.
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
    """min(SNR, γ) (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv:2303.09556, eq. 8).
    It weighs ε's error by min(SNR, γ)/SNR, and v's by min(SNR, γ)/(SNR + 1)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _above_zero("gamma", self.gamma)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)


@dataclass(frozen=True)
class P2:
    """The weight 1/(k + SNR)^γ for ε's error (Choi et al. 2022, "Perception Prioritized Training of Diffusion Models",
    arXiv:2204.00227, eq. 8)."""

    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self) -> None:
        _above_zero("gamma", self.gamma)
        _above_zero("k", self.k)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr / (self.k + snr) ** self.gamma


@dataclass(frozen=True)
class EDM:
    """λ(σ) = (σ² + sigma_data²)/(σ·sigma_data)² (Karras et al. 2022, arXiv:2206.00364, Table 1). The error of
    the raw network F then has the same weight at every σ."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _above_zero("sigma_data", self.sigma_data)

    def __call__(self, snr: Tensor) -> Tensor:
        return snr + self.sigma_data**-2  # σ² is 1/SNR
