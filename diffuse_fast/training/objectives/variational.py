"""The ELBO as an objective, and Improved DDPM's hybrid, which learns the variance beside the mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...checks import require_int
from ...errors import ArgumentError, suggest
from ...schedule.discrete import DiscreteSchedule
from ...solver.prediction import data_prediction
from ...theory import REVERSE_VARIANCES, posterior
from .batch_position import BatchPosition
from .forward import ForwardProcess
from .objective import Conditions, Losses, Network, drawn_noise, drawn_times, report_losses
from .times import TimeSampler, UniformTimes

if TYPE_CHECKING:
    from ...schedule import Schedule


class VariationalObjective:
    """L_vlb, the ELBO in bits per dimension, or the hybrid objective of Improved DDPM.

    L_vlb evaluates one random term of the ELBO per sample, times the number of terms (Ho et al. 2020, eq. 5), for the reverse
    process of :func:`diffuse_fast.theory.reverse`. It omits the prior's term, which does not depend on the network. With
    ``simple=True`` it is the hybrid L_simple + vlb_weight·L_vlb, where the mean gets no gradient of L_vlb (Nichol & Dhariwal 2021,
    arXiv:2102.09672, eq. 16).

    At timestep 0, the decoder, β̃ is 0; as in that paper's code, the value of timestep 1 is used.

    Args:
        schedule: A discrete schedule of at least two timesteps; with ``epsilon`` its terminal SNR must be above 0.
        prediction_type: One of the schedule's prediction types.
        variance_type: ``fixed_small``, ``fixed_large``, ``learned`` or ``learned_range``; for the last two the network returns
            twice the channels, the second half being v.
        levels: Number of evenly spaced values of the data over ``value_range``, for the discretised decoder (Ho et al. 2020,
            eq. 13); None for continuous data.
        value_range: The lowest and the highest value.
        simple: Use the hybrid. It needs a learned variance.
        vlb_weight: λ of the hybrid.
        times: Sampler of times; None draws them uniformly.

    Raises:
        ArgumentError: an argument is out of range, or the arguments do not fit each other.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import VariationalObjective
        >>> objective = VariationalObjective(df.Schedule.cosine(), "epsilon", variance_type="learned_range", simple=True)
        >>> network = lambda x, t: torch.zeros(len(x), 2 * x.shape[1])
        >>> objective(network, torch.zeros(8, 3), generator=torch.Generator().manual_seed(0)).each.shape
        torch.Size([8])
    """

    def __init__(
        self,
        schedule: Schedule,
        prediction_type: str,
        *,
        variance_type: str = "fixed_large",
        levels: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        simple: bool = False,
        vlb_weight: float = 1e-3,
        times: TimeSampler | None = None,
    ):
        if variance_type not in REVERSE_VARIANCES:
            raise ArgumentError(f"variance_type is {variance_type!r}.{suggest(str(variance_type), REVERSE_VARIANCES)}")
        if simple and not variance_type.startswith("learned"):
            raise ArgumentError(f"variance_type is {variance_type!r}; the hybrid needs a learned one.")
        if not isinstance(schedule, DiscreteSchedule) or schedule.num_train_timesteps < 2:
            raise ArgumentError("schedule must be a discrete one of at least 2 timesteps; the ELBO is a sum over them.")
        if prediction_type == "epsilon" and schedule.alpha(schedule.t_max) == 0.0:
            raise ArgumentError("epsilon does not determine x0 at the end of this schedule; predict v.")
        if not 0.0 < vlb_weight < math.inf:
            raise ArgumentError(f"vlb_weight is {vlb_weight!r}; it must be above 0 and finite.")
        if levels is not None:
            levels = require_int("levels", levels, 2)
        if not value_range[0] < value_range[1]:
            raise ArgumentError(f"value_range is {value_range!r}; it must be (lo, hi) with lo < hi.")
        self.process = ForwardProcess(schedule, prediction_type)
        self.times: TimeSampler = times if times is not None else UniformTimes(schedule)
        self.variance_type, self.levels, self.value_range = variance_type, levels, value_range
        self.simple, self.vlb_weight = simple, vlb_weight
        self._tables = self._made(schedule, prediction_type)

    @staticmethod
    def _made(schedule: DiscreteSchedule, prediction_type: str) -> dict[str, Tensor]:
        """Tables over timesteps: p and q of x̂0 = p·x + q·m, the weight of x0 in the posterior's mean, log β̃ and log β."""
        count = schedule.num_train_timesteps
        each = [
            data_prediction(prediction_type, a, s, schedule.sigma_data)
            for a, s in zip(schedule.alpha(np.arange(count)), schedule.sigma(np.arange(count)), strict=True)
        ]
        t = np.arange(1, count)
        unit = posterior(schedule, np.zeros((count - 1, 1)), np.ones((count - 1, 1)), t=t, s=t - 1)
        small = np.concatenate([unit.variance[:1, 0], unit.variance[:, 0]])
        columns = {
            "p": [p for p, _ in each],
            "q": [q for _, q in each],
            "c": np.concatenate([[1.0], unit.mean[:, 0]]),
            "log_small": np.log(small),
            "log_large": np.log(schedule.betas),
        }
        return {name: torch.as_tensor(np.asarray(values), dtype=torch.float64) for name, values in columns.items()}

    def __call__(
        self,
        network: Network,
        x0: Tensor,
        cond: Conditions | None = None,
        *,
        generator: torch.Generator,
        position: BatchPosition | None = None,
    ) -> Losses:
        """The losses of a batch; arguments as of :meth:`Objective.__call__`."""
        t, correction = drawn_times(self.times, len(x0), generator, position)
        x_t, target = self.process(x0, t, drawn_noise(x0, generator, position))
        output = network(x_t.clone(), self.process.network_time(t).to(x0.device), **(cond or {}))
        v = None
        if self.variance_type.startswith("learned"):
            output, v = output.chunk(2, dim=1)
        bits = self.terms(x0, x_t, output.detach() if self.simple else output, v, t) * len(self._tables["p"])
        each = bits
        if self.simple:
            each = (output - target).square().flatten(1).mean(1) + self.vlb_weight * bits
        if position is None:
            report_losses(self.times, t, each.detach())
        return Losses((each * correction.to(each)).mean(), each.detach(), t)

    def terms(self, x0: Tensor, x_t: Tensor, model_output: Tensor, v: Tensor | None, t: Tensor) -> Tensor:
        """L_{t−1} of each sample (L_0 at timestep 0), in bits per dimension: (B,), in the dtype of x0.

        Args:
            x0, x_t, model_output: (B, ...).
            v: (B, ...) for a learned variance, else None.
            t: (B,) int64.
        """
        shape = (-1,) + (1,) * (x0.ndim - 1)
        p, q, c, small, large = (self._tables[name][t.cpu()].to(x0).reshape(shape) for name in self._tables)
        data = p * x_t + q * model_output
        if self.variance_type == "learned":
            assert v is not None
            log_variance = v
        elif self.variance_type == "learned_range":
            assert v is not None
            share = 0.5 * (v + 1.0)
            log_variance = share * large + (1.0 - share) * small
        else:
            log_variance = small if self.variance_type == "fixed_small" else large
        log_variance = log_variance.expand(x0.shape)
        difference = small - log_variance
        # Between Gaussians of the variances exp(small) and exp(log_variance).
        kl = 0.5 * (torch.expm1(difference) - difference + (c * (x0 - data)).square() * torch.exp(-log_variance))
        decoder = negative_log_decoder(x0, data, 0.5 * log_variance, self.levels, self.value_range)
        nats = torch.where((t == 0).to(x0.device).reshape(shape), decoder, kl)
        return nats.flatten(1).mean(1) / math.log(2.0)


def negative_log_decoder(x0: Tensor, mean: Tensor, log_std: Tensor, levels: int | None, value_range: tuple[float, float]) -> Tensor:
    """:func:`diffuse_fast.theory.decoder_term` with a gradient: one value per element of x0."""
    if levels is None:
        return 0.5 * (math.log(2.0 * math.pi) + ((x0 - mean) * torch.exp(-log_std)).square()) + log_std
    lo, hi = value_range
    half = 0.5 * (hi - lo) / (levels - 1)
    scale = torch.exp(-log_std)
    below, above = (x0 - half - mean) * scale, (x0 + half - mean) * scale
    # The outermost cells are unbounded. A far finite bound has the same value, and a gradient of 0 instead of NaN.
    far = 1e6
    below = torch.where(x0 - half < lo, above.detach() - far, below)
    above = torch.where(x0 + half > hi, below.detach() + far, above)
    flip = below > 0.0  # use the tail in which both are small
    low, high = torch.where(flip, -above, below), torch.where(flip, -below, above)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    gap = (log_low - log_high).clamp(max=-1e-12)  # for cells that rounding has closed
    return -(log_high + torch.log(-torch.expm1(gap)))
