"""The forward process, which makes noisy samples and training targets, and L_simple (Ho et al. 2020, equation 14).

With x_t = alpha·x0 + sigma·ε, the loss is the mean of ‖target − network(x_t, t)‖² over data, times and noise. The prediction type
defines the target (``solver/prediction.py``): ε, x0, v = alpha·ε − sigma·x0, ε − x0, ... Given x_t, each is linear in the
others, so they differ only in how they weigh times.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ArgumentError
from ...kernels import forward as fused
from ...kernels import kernels
from ...schedule.discrete import DiscreteSchedule
from ...solver.prediction import target_weights
from .batch_position import BatchPosition

if TYPE_CHECKING:
    from ...schedule import Schedule

TARGETS = DiscreteSchedule.prediction_types


class Levels(NamedTuple):
    """The marginals of a batch, each (B,) float64."""

    alpha: Tensor
    sigma: Tensor
    snr: Tensor


class ForwardProcess:
    """Makes x_t and the training target from clean data.

    Float32 data on the CPU, or on a CUDA device with triton, take one compiled pass (:func:`diffuse_fast.kernels.forward`); other
    data take torch's operations.

    Args:
        schedule: Any schedule. The times of a discrete one are integers from 0 to ``num_train_timesteps`` − 1.
        prediction_type: One of the schedule's ``prediction_types``.
        convention: The time convention of the network's input, one of the schedule's ``time_conventions``; None is the first.

    Raises:
        ArgumentError: the schedule's family does not have this prediction type or convention.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import ForwardProcess
        >>> process = ForwardProcess(df.Schedule.flow(), "flow")
        >>> x_t, target = process(torch.ones(1, 2), torch.tensor([250.0]), torch.zeros(1, 2))
        >>> x_t.tolist(), target.tolist()
        ([[0.75, 0.75]], [[-1.0, -1.0]])
    """

    def __init__(self, schedule: Schedule, prediction_type: str, convention: str | None = None):
        for name, value, known in (
            ("prediction_type", prediction_type, schedule.prediction_types),
            ("convention", convention or schedule.time_conventions[0], schedule.time_conventions),
        ):
            if value not in known:
                raise ArgumentError(f"{name} is {value!r}; a schedule of the family {schedule.family} has {', '.join(known)}.")
        self.schedule, self.prediction_type = schedule, prediction_type
        self.convention = convention or schedule.time_conventions[0]
        self._tables: Levels | None = None
        if isinstance(schedule, DiscreteSchedule):
            self.num_train_timesteps = schedule.num_train_timesteps
            self._tables = self._at(np.arange(schedule.num_train_timesteps))
            # A float32 copy, because every step reads them.
            weights = target_weights(prediction_type, self._tables.alpha, self._tables.sigma, schedule.sigma_data)
            each = (self._tables.alpha, self._tables.sigma, *weights)
            self._float = [torch.as_tensor(v, dtype=torch.float64).expand(self.num_train_timesteps).float() for v in each]

    def __call__(self, x0: Tensor, t: Tensor, noise: Tensor | BatchPosition) -> tuple[Tensor, Tensor]:
        """Return x_t and the target.

        Args:
            x0: Data (B, ...).
            t: Times (B,), int64 for a discrete schedule.
            noise: Noise of the shape of x0, or the position of the samples in a run, which determines their noise.

        The compiled pass and torch's operations differ by float32 rounding: one rounds a product and its sum once, the other twice.
        """
        alpha, sigma, u, w = self._coefficients(t)
        given = noise if isinstance(noise, Tensor) else None
        if all(_plain(value) for value in (x0, given) if value is not None):
            if isinstance(noise, BatchPosition):
                return fused(x0, alpha, sigma, target=(u, w), seed=noise.seed, step=noise.step, index=noise.first)
            return fused(x0, alpha, sigma, target=(u, w), noise=noise)
        if isinstance(noise, BatchPosition):
            noise = noise.normals(x0.shape).to(x0.device)
        each = (-1,) + (1,) * (x0.ndim - 1)
        alpha, sigma, u, w = (v.to(x0.device).reshape(each) for v in (alpha, sigma, u, w))
        return alpha * x0 + sigma * noise, u * x0 + w * noise

    def _coefficients(self, t: Tensor) -> list[Tensor]:
        """alpha, sigma and the weights of data and noise in the target, each (B,) float32 on the CPU."""
        if self._tables is not None:
            return [v[t.cpu()] for v in self._float]
        levels = self.levels(t)
        weights = target_weights(self.prediction_type, levels.alpha, levels.sigma, self.schedule.sigma_data)
        return [torch.as_tensor(v, dtype=torch.float64).expand(len(t)).float() for v in (*levels[:2], *weights)]

    def levels(self, t: Tensor) -> Levels:
        """The marginals at times (B,), float64, on the CPU."""
        if self._tables is not None:
            return Levels(*(v[t.cpu()] for v in self._tables))
        return self._at(t.double().cpu().numpy())

    def network_time(self, t: Tensor) -> Tensor:
        """The network's time input: int64 for timesteps of a discrete schedule, else float32."""
        if self.convention == "timestep" and self._tables is not None:
            return t
        values: Any = self.schedule.network_time(t.double().cpu().numpy(), self.convention)
        return torch.from_numpy(values).to(t.device, torch.float32)

    def _at(self, t: np.ndarray) -> Levels:
        schedule = self.schedule
        return Levels(*(torch.from_numpy(v) for v in (schedule.alpha(t), schedule.sigma(t), np.exp(schedule.log_snr(t)))))


def _plain(value: Tensor) -> bool:
    """Whether the compiled pass supports a tensor: its device, dtype and memory layout; and it needs no gradient."""
    return (
        _compiled_on(value.device.type)
        and value.dtype == torch.float32
        and value.is_contiguous()
        and value.numel() > 0
        and not value.requires_grad
    )


@functools.cache
def _compiled_on(device: str) -> bool:
    return device == "cpu" or (device == "cuda" and any(k.name == "triton" and k.unavailable is None for k in kernels()))


def simple_loss(network: nn.Module, x_t: Tensor, t: Tensor, target: Tensor, label: Tensor | None = None) -> Tensor:
    """The mean squared error of the network's prediction, a scalar."""
    prediction = network(x_t, t) if label is None else network(x_t, t, label)
    return (prediction - target).square().mean()


@torch.no_grad()
def evaluate_loss(
    network: nn.Module, data: Tensor, labels: Tensor | None, forward_process: ForwardProcess, *, draws: int, seed: int
) -> float:
    """The simple loss of a network in eval mode on data (N, ...), with ``draws`` seeded times and noises per sample."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(draws):
        t = torch.randint(forward_process.num_train_timesteps, (len(data),), generator=generator)
        noise = torch.randn(data.shape, generator=generator)
        x_t, target = forward_process(data, t, noise)
        total += simple_loss(network, x_t, t, target, labels).item()
    return total / draws
