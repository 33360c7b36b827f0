"""The squared error of a prediction, with a weighting and a sampler of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...kernels.reference import STREAM_TRAINING_REST
from ...solver.prediction import target_weights
from .batch_position import BatchPosition, draw_part
from .forward import ForwardProcess, Levels
from .times import AdaptiveTimes, Times, TimeSampler, UniformTimes
from .weighting import Weighting

if TYPE_CHECKING:
    from ...schedule import Schedule

Network = Callable[..., Tensor]
Conditions = Mapping[str, Tensor]


class Losses(NamedTuple):
    """The losses of a batch.

    Attributes:
        loss: The mean over the batch, a scalar with a gradient.
        each: The loss of each sample before the sampler's weight, (B,), without a gradient.
        t: The drawn times, (B,).
    """

    loss: Tensor
    each: Tensor
    t: Tensor


class AnyObjective(Protocol):
    """An objective of the training loop. The parameters of one that is a ``nn.Module`` are trained with the network's."""

    def __call__(
        self,
        network: Network,
        x0: Tensor,
        cond: Conditions | None = None,
        *,
        generator: torch.Generator,
        position: BatchPosition | None = None,
    ) -> Losses: ...


class Objective:
    """The weighted squared error of a prediction, E[w(t)·‖target − network(x_t, t)‖²], for x_t = alpha·x0 + sigma·ε.

    Schedule, prediction type and weighting make it L_simple of DDPM (Ho et al. 2020, arXiv:2006.11239, eq. 14), v-prediction, EDM
    or flow matching (Lipman et al. 2023, arXiv:2210.02747, eq. 23). The error is a mean over elements.

    Args:
        schedule: Any schedule.
        prediction_type: One of the schedule's prediction types.
        weighting: A function of SNR that weighs the error of x0 (``weighting.py``); None weighs the prediction's error equally at
            all times.
        times: Sampler of times; None draws them uniformly.
        convention: The time convention of the network's input; None is the schedule's first.
        offset_noise: Standard deviation of extra noise with one value per sample and channel, added to ε (Guttenberg 2023,
            "Diffusion with Offset Noise").

    Raises:
        ArgumentError: an argument does not fit the schedule, or ``weighting`` is given for ε at zero terminal SNR, where the error
            of x0 is undefined.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.training.objectives import MinSNR, Objective
        >>> objective = Objective(df.Schedule.cosine(), "v_prediction", weighting=MinSNR())
        >>> losses = objective(lambda x, t: torch.zeros_like(x), torch.zeros(8, 2), generator=torch.Generator().manual_seed(0))
        >>> losses.loss.shape, losses.each.shape, losses.t.dtype
        (torch.Size([]), torch.Size([8]), torch.int64)
    """

    def __init__(
        self,
        schedule: Schedule,
        prediction_type: str,
        *,
        weighting: Weighting | None = None,
        times: TimeSampler | None = None,
        convention: str | None = None,
        offset_noise: float = 0.0,
    ):
        if not 0.0 <= offset_noise < float("inf"):
            raise ArgumentError(f"offset_noise is {offset_noise!r}; it must be finite and at least 0.")
        if weighting is not None and prediction_type in ("epsilon", "score") and schedule.alpha(schedule.t_max) == 0.0:
            raise ArgumentError(
                f"{prediction_type} does not determine x0 at the end of this schedule; predict v, or omit weighting."
            )
        self.process = ForwardProcess(schedule, prediction_type, convention)
        self.weighting, self.offset_noise = weighting, offset_noise
        self.times: TimeSampler = times if times is not None else UniformTimes(schedule)

    def __call__(
        self,
        network: Network,
        x0: Tensor,
        cond: Conditions | None = None,
        *,
        generator: torch.Generator,
        position: BatchPosition | None = None,
    ) -> Losses:
        """The losses of a batch.

        Args:
            network: Called ``network(x, t, **cond)``.
            x0: (B, ...) float32 data.
            cond: Conditioning by name, each (B, ...).
            generator: Draws times and noise, on the CPU.
            position: Where x0 lies in a larger batch of a run. The generator then draws times for the full batch, of which these
                samples get theirs; noise depends on the position alone; and the caller reports the losses to ``times``
                (:func:`report_losses`) when all parts are done.
        """
        t, correction = drawn_times(self.times, len(x0), generator, position)
        noise = drawn_noise(x0, generator, position, self.offset_noise)
        x_t, target = self.process(x0, t, noise)
        prediction = network(x_t, self.process.network_time(t).to(x0.device), **(cond or {}))
        each = (prediction - target).square().flatten(1).mean(1)
        if self.weighting is not None:
            each = each * self.weight(t).to(each)
        if position is None:
            report_losses(self.times, t, each.detach())
        return Losses((each * correction.to(each)).mean(), each.detach(), t)

    def weight(self, t: Tensor) -> Tensor:
        """The weight of the prediction's squared error at times (B,), float64."""
        levels = self.process.levels(t)
        if self.weighting is None:
            return torch.ones(len(t), dtype=torch.float64)
        schedule = self.process.schedule
        return self.weighting(levels.snr) / sensitivity(self.process.prediction_type, levels, schedule.sigma_data).square()


def sensitivity(prediction_type: str, levels: Levels, sigma_data: float) -> Tensor:
    """dm/dx0 at a given state, for a prediction m = u·x0 + w·ε. With ε = (x − alpha·x0)/sigma it is u − w·alpha/sigma."""
    u, w = target_weights(prediction_type, levels.alpha, levels.sigma, sigma_data)
    return torch.as_tensor(u - w * levels.alpha / levels.sigma)


def drawn_times(times: TimeSampler, count: int, generator: torch.Generator, position: BatchPosition | None) -> Times:
    """Draw times for ``count`` samples: a batch, or the part at ``position`` of a larger one."""
    if position is None:
        return times.sample(count, generator)
    drawn = times.sample(position.batch, generator)
    return Times(*(value[position.first : position.first + count] for value in drawn))


def report_losses(times: TimeSampler, t: Tensor, losses: Tensor) -> None:
    """Report the losses (B,) at times (B,) to a sampler that adapts to them; others ignore them."""
    if isinstance(times, AdaptiveTimes):
        times.update(t, losses)


def drawn_noise(
    x0: Tensor, generator: torch.Generator, position: BatchPosition | None, offset: float = 0.0
) -> Tensor | BatchPosition:
    """Draw standard normal noise of the shape of x0, plus ``offset`` times one normal per sample and channel.

    Without an offset, a position is returned as it is: the forward process makes its noise.
    """
    if position is not None and not offset:
        return position
    noise = torch.randn(x0.shape, generator=generator) if position is None else position.normals(x0.shape)
    if offset:
        each = (*x0.shape[:2], *(1,) * (x0.ndim - 2))
        noise += offset * (
            torch.randn(each, generator=generator) if position is None else position.normals(each, STREAM_TRAINING_REST)
        )
    return noise.to(x0.device)


def drop_conditions(
    cond: Conditions,
    null: Mapping[str, float],
    probability: float,
    generator: torch.Generator,
    position: BatchPosition | None = None,
) -> dict[str, Tensor]:
    """Replace the conditioning of randomly chosen samples by its null values, for classifier-free guidance.

    All conditions of a chosen sample are replaced (Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv:2207.12598,
    Algorithm 1).

    Args:
        cond: Conditions by name, each (B, ...).
        null: The null value of each condition.
        probability: Probability that a sample is chosen, from 0 to 1.
        generator: Draws the samples, on the CPU.
        position: The samples' positions in the run's global batch. The choice depends on these, not on how the batch is divided.

    Raises:
        ArgumentError: a null value is missing, or the probability is outside [0, 1].

    Example:
        >>> import torch
        >>> from diffuse_fast.training.objectives import drop_conditions
        >>> drop_conditions({"label": torch.tensor([3, 4])}, {"label": 10}, 1.0, torch.Generator())
        {'label': tensor([10, 10])}
    """
    if not 0.0 <= probability <= 1.0:
        raise ArgumentError(f"probability is {probability!r}; it must be from 0 to 1.")
    if missing := [name for name in cond if name not in null]:
        raise ArgumentError(f"null has no value for {missing[0]!r}, which is in cond.")
    if not cond:
        return {}
    batch = len(next(iter(cond.values())))
    drop = draw_part(batch, position, lambda count: torch.rand(count, generator=generator)) < probability

    def dropped(value: Tensor, replacement: float) -> Tensor:
        where = drop.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))
        return torch.where(where, torch.full_like(value, replacement), value)

    return {name: dropped(value, null[name]) for name, value in cond.items()}
