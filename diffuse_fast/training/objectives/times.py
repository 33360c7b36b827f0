"""Samplers of the times at which an objective is evaluated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...checks import require_int, require_positive
from ...errors import ArgumentError, suggest
from ...schedule.discrete import DiscreteSchedule

if TYPE_CHECKING:
    from ...schedule import Schedule

SPREADS = ("independent", "antithetic", "low_discrepancy")


class Times(NamedTuple):
    """Times (B,), int64 for a discrete schedule, else float64; and importance weights (B,) float32 of the losses at these times,
    with which their mean is that of the objective."""

    t: Tensor
    weight: Tensor


class TimeSampler(Protocol):
    """A sampler of times."""

    def sample(self, n: int, generator: torch.Generator) -> Times: ...


@runtime_checkable
class AdaptiveTimes(TimeSampler, Protocol):
    """A sampler that adapts to the losses; checkpoints keep its state."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take in the times (B,) of a batch, from all processes, and the unweighted loss of each sample."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class UniformTimes:
    """Uniform times: every timestep of a discrete schedule, else t in [``t_min``, ``t_max``].

    Args:
        schedule: Any schedule.
        spread: How the times of a batch depend on each other. Each alone is uniform.

            ===================  ===========================================================================
            ``independent``      independent draws
            ``antithetic``       one half is the mirror image of the other (the code of Song et al. 2020, DDIM)
            ``low_discrepancy``  evenly spaced from a random start (Kingma et al. 2021, arXiv:2107.00630, appendix I.1)
            ===================  ===========================================================================

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import UniformTimes
        >>> t, weight = UniformTimes(df.Schedule.cosine(), "antithetic").sample(4, torch.Generator().manual_seed(0))
        >>> (t[:2] + t[2:]).tolist(), weight.tolist()
        ([999, 999], [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, schedule: Schedule, spread: str = "independent"):
        if spread not in SPREADS:
            raise ArgumentError(f"spread is {spread!r}.{suggest(str(spread), SPREADS)}")
        self.schedule, self.spread = schedule, spread

    def sample(self, n: int, generator: torch.Generator) -> Times:
        return Times(self._times(self._unit(n, generator)), torch.ones(n))

    def _unit(self, n: int, generator: torch.Generator) -> Tensor:
        """Numbers in [0, 1)."""
        if self.spread == "low_discrepancy":
            start = torch.rand(1, generator=generator, dtype=torch.float64)
            return (start + torch.arange(n, dtype=torch.float64) / n) % 1.0
        if self.spread == "independent":
            return torch.rand(n, generator=generator, dtype=torch.float64)
        half = torch.rand(-(-n // 2), generator=generator, dtype=torch.float64)
        # On an integer grid the mirror is exact: floor(T·(1 − u)) is T − 1 − floor(T·u), except where T·u is an integer.
        return torch.cat([half, torch.nextafter(1.0 - half, torch.zeros_like(half))])[:n]

    def _times(self, u: Tensor) -> Tensor:
        if isinstance(self.schedule, DiscreteSchedule):
            count = self.schedule.num_train_timesteps
            return (u * count).long().clamp(max=count - 1)
        return self.schedule.t_min + u * (self.schedule.t_max - self.schedule.t_min)


class ImportanceTimes:
    """Timesteps in proportion to the root mean square of their last losses, which minimises the variance of the estimate
    (Nichol & Dhariwal 2021, "Improved DDPM", arXiv:2102.09672, eq. 18). Uniform until every timestep has ``history`` losses.

    Args:
        schedule: A discrete schedule.
        history: Number of losses kept per timestep.
        uniform: Uniform share of the probability, so that a timestep with losses of 0 is still drawn.

    Raises:
        ArgumentError: the schedule has no timesteps, or a number is out of range.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import ImportanceTimes
        >>> times = ImportanceTimes(df.Schedule.linear(2), history=1, uniform=0.0)
        >>> times.update(torch.tensor([0, 1]), torch.tensor([3.0, 1.0]))
        >>> times.probabilities.tolist()
        [0.75, 0.25]
    """

    def __init__(self, schedule: Schedule, *, history: int = 10, uniform: float = 1e-3):
        if not isinstance(schedule, DiscreteSchedule):
            raise ArgumentError(f"schedule is of the family {schedule.family}; importance times need a discrete one.")
        history = require_int("history", history, 1)
        if not 0.0 <= uniform <= 1.0:
            raise ArgumentError(f"uniform is {uniform!r}; it must be from 0 to 1.")
        self.history, self.uniform = history, uniform
        self._losses = torch.zeros(schedule.num_train_timesteps, history, dtype=torch.float64)
        self._seen = torch.zeros(schedule.num_train_timesteps, dtype=torch.int64)

    @property
    def probabilities(self) -> Tensor:
        """The current probability of each timestep, (T,) float64."""
        count, history = self._losses.shape
        flat = torch.full((count,), 1.0 / count, dtype=torch.float64)
        if (self._seen < history).any():
            return flat
        weight = self._losses.square().mean(1).sqrt()
        total = weight.sum()
        return flat if total == 0 else (1.0 - self.uniform) * weight / total + self.uniform * flat

    def sample(self, n: int, generator: torch.Generator) -> Times:
        p = self.probabilities
        t = torch.multinomial(p, n, replacement=True, generator=generator)
        return Times(t, (1.0 / (len(p) * p[t])).float())

    def update(self, t: Tensor, losses: Tensor) -> None:
        history = self._losses.shape[1]
        for i, loss in zip(t.tolist(), losses.tolist(), strict=True):
            self._losses[i, int(self._seen[i]) % history] = loss  # overwrites the oldest
            self._seen[i] += 1

    def state_dict(self) -> dict[str, Any]:
        """The history, for a checkpoint."""
        return {"losses": self._losses.clone(), "seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the history from :meth:`state_dict`.

        Raises:
            ArgumentError: it has another number of timesteps or losses.
        """
        if state["losses"].shape != self._losses.shape:
            given, own = tuple(state["losses"].shape), tuple(self._losses.shape)
            raise ArgumentError(f"the history has {given} timesteps and losses; this sampler has {own}.")
        self._losses.copy_(state["losses"])
        self._seen.copy_(state["seen"])


class LogNormalTimes:
    """Noise levels sigma/alpha with log σ ~ N(mean, std²) (Karras et al. 2022, arXiv:2206.00364, Table 1), clamped to the range of
    the schedule. The distribution is part of the objective: the importance weights are 1.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import LogNormalTimes
        >>> t, _ = LogNormalTimes(df.Schedule.edm()).sample(1000, torch.Generator().manual_seed(0))
        >>> bool(abs(t.log().mean() + 1.2) < 0.2)
        True
    """

    def __init__(self, schedule: Schedule, *, mean: float = -1.2, std: float = 1.2):
        if isinstance(schedule, DiscreteSchedule):
            raise ArgumentError(
                "schedule is discrete; log-normal levels are not on its timesteps. Use UniformTimes and a weighting."
            )
        if not math.isfinite(mean):
            raise ArgumentError(f"mean is {mean!r}; it must be finite.")
        self.schedule, self.mean, self.std = schedule, mean, require_positive("std", std)

    def sample(self, n: int, generator: torch.Generator) -> Times:
        log_level = self.mean + self.std * torch.randn(n, generator=generator, dtype=torch.float64)
        lowest, highest = (self.schedule.log_snr(t) for t in (self.schedule.t_max, self.schedule.t_min))
        log_snr = (-2.0 * log_level).clamp(lowest, highest)
        return Times(torch.from_numpy(self.schedule.timestep_at_log_snr(log_snr.numpy())), torch.ones(n))


class LogitNormalTimes:
    """Times of a flow with σ = sigmoid(N(mean, std²)), denser in the middle (Esser et al. 2024, arXiv:2403.03206, eq. 19). The
    importance weights are 1, as for :class:`LogNormalTimes`.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import LogitNormalTimes
        >>> t, _ = LogitNormalTimes(df.Schedule.flow()).sample(1000, torch.Generator().manual_seed(0))
        >>> bool(abs(t.mean() - 500) < 30)
        True
    """

    def __init__(self, schedule: Schedule, *, mean: float = 0.0, std: float = 1.0):
        if schedule.family != "flow":
            raise ArgumentError(f"schedule is of the family {schedule.family}; logit-normal times need a flow.")
        if not math.isfinite(mean):
            raise ArgumentError(f"mean is {mean!r}; it must be finite.")
        self.schedule, self.mean, self.std = schedule, mean, require_positive("std", std)

    def sample(self, n: int, generator: torch.Generator) -> Times:
        sigma = (self.mean + self.std * torch.randn(n, generator=generator, dtype=torch.float64)).sigmoid()
        return Times(sigma * self.schedule.t_max, torch.ones(n))
