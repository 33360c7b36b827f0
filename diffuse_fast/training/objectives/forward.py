"""What a network learns to predict, and the loss: L_simple (Ho et al. 2020, equation 14).

With x_t = alpha·x0 + sigma·ε, the loss is the mean of ‖target − network(x_t, t)‖² over data, times and noise, where the
target is

==============  ======================  ================================
epsilon         ε                       Ho et al. 2020, equation 14
sample          x0
v_prediction    alpha·ε − sigma·x0      Salimans & Ho 2022, section 4
==============  ======================  ================================

Each is a linear function of the others given x_t, so they differ only in how they weigh times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..schedule.discrete import DiscreteSchedule

if TYPE_CHECKING:
    from ..schedule import Schedule

TARGETS = {
    "epsilon": lambda x0, noise, alpha, sigma: noise,
    "sample": lambda x0, noise, alpha, sigma: x0,
    "v_prediction": lambda x0, noise, alpha, sigma: alpha * noise - sigma * x0,
}


class ForwardProcess:
    """The forward process of a discrete schedule: makes x_t and the target from clean data.

    Args:
        schedule: Gives alpha² = ``alphas_cumprod`` and sigma² = 1 − ``alphas_cumprod`` at the integer times.
        prediction_type: A key of ``TARGETS``.
    """

    def __init__(self, schedule: Schedule, prediction_type: str):
        if not isinstance(schedule, DiscreteSchedule):
            raise ArgumentError(f"schedule is of the family {schedule.family}; training draws integer times of a discrete one.")
        alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
        self.num_train_timesteps = len(alphas_cumprod)
        self._alpha = alphas_cumprod.sqrt().float()
        self._sigma = (1.0 - alphas_cumprod).sqrt().float()
        self._target = TARGETS[prediction_type]

    def __call__(self, x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and the target for data x0 (B, ...), times t (B,) int64 and noise of the shape of x0."""
        each = (-1,) + (1,) * (x0.ndim - 1)
        alpha, sigma = self._alpha[t].reshape(each), self._sigma[t].reshape(each)
        return alpha * x0 + sigma * noise, self._target(x0, noise, alpha, sigma)


def simple_loss(network: nn.Module, x_t: Tensor, t: Tensor, target: Tensor, label: Tensor | None = None) -> Tensor:
    """The mean squared error of the network's prediction, a scalar."""
    prediction = network(x_t, t) if label is None else network(x_t, t, label)
    return (prediction - target).square().mean()


@torch.no_grad()
def evaluate_loss(
    network: nn.Module, data: Tensor, labels: Tensor | None, forward_process: ForwardProcess, *, draws: int, seed: int
) -> float:
    """The simple loss of a network in eval mode on given data (N, ...), each sample at ``draws`` seeded times and
    noises."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(draws):
        t = torch.randint(forward_process.num_train_timesteps, (len(data),), generator=generator)
        noise = torch.randn(data.shape, generator=generator)
        x_t, target = forward_process(data, t, noise)
        total += simple_loss(network, x_t, t, target, labels).item()
    return total / draws
