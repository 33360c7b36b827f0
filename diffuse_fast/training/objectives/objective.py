"""The squared error of a prediction, with a weighting and a sampler of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...kernels.reference import STREAM_TRAINING_REST
from ...solver.prediction import target_weights
from .forward import ForwardProcess, Levels
from .place import Place, share
from .times import Listening, Times, TimeSampler, UniformTimes
from .weighting import Weighting

if TYPE_CHECKING:
    from ...schedule import Schedule

Network = Callable[..., Tensor]
Conditions = Mapping[str, Tensor]


class Losses(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: The mean over the batch, of which the gradient is taken; a scalar.
        each: The loss of each sample before the sampler's weight, (B,), without a gradient.
        t: The times that were drawn, (B,).
    """

    loss: Tensor
    each: Tensor
    t: Tensor


class AnyObjective(Protocol):
    """What the loop is given. One that is a ``nn.Module`` has parameters of its own, to be trained with the network's."""

    def __call__(
        self,
        network: Network,
        x0: Tensor,
        cond: Conditions | None = None,
        *,
        generator: torch.Generator,
        place: Place | None = None,
    ) -> Losses: ...


class Objective:
    """E[w(t)·‖target − network(x_t, t)‖²], the mean over elements, for x_t = alpha·x0 + sigma·ε: L_simple of DDPM (Ho et al. 2020,
    arXiv:2006.11239, eq. 14), v-prediction, EDM, flow matching (Lipman et al. 2023, arXiv:2210.02747, eq. 23), by what is given.

    Args:
        schedule: Any.
        prediction_type: One of the schedule's.
        weighting: None, so that the error of what is predicted counts the same at every time; or a function of SNR that weighs the
            error of x0 (``weighting.py``).
        times: What draws the times; None draws them uniformly.
        convention: What the network is told of the time; None is the schedule's first.
        offset_noise: Standard deviation of a noise that is one number for each sample and channel, added to ε (Guttenberg 2023,
            "Diffusion with Offset Noise").

    Raises:
        ArgumentError: an argument does not fit the schedule; ε is predicted where nothing is left of the data, so that x0's error
            has no weight there.

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
            raise ArgumentError(f"offset_noise is {offset_noise!r}; it must be from 0, and finite.")
        if weighting is not None and prediction_type in ("epsilon", "score") and schedule.alpha(schedule.t_max) == 0.0:
            raise ArgumentError(
                f"{prediction_type} says nothing of x0 at the end of this schedule; predict v, or leave weighting out."
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
        place: Place | None = None,
    ) -> Losses:
        """The losses of a batch.

        Args:
            network: Called ``network(x, t, **cond)``.
            x0: (B, ...) float32 data.
            cond: Conditioning by name, each (B, ...).
            generator: Draws times and noise, on the CPU.
            place: Of a part of a batch, in a run: times are then the part's of those that the generator draws for the whole batch,
                noise is a function of the place alone, and it is the caller who lets ``times`` hear of the losses (:func:`tell`),
                once all parts are there.
        """
        t, correction = drawn_times(self.times, len(x0), generator, place)
        noise = drawn_noise(x0, generator, place, self.offset_noise)
        x_t, target = self.process(x0, t, noise)
        prediction = network(x_t, self.process.told(t).to(x0.device), **(cond or {}))
        each = (prediction - target).square().flatten(1).mean(1)
        if self.weighting is not None:
            each = each * self.weight(t).to(each)
        if place is None:
            tell(self.times, t, each.detach())
        return Losses((each * correction.to(each)).mean(), each.detach(), t)

    def weight(self, t: Tensor) -> Tensor:
        """What the squared error of the prediction counts at times (B,), float64."""
        levels = self.process.levels(t)
        if self.weighting is None:
            return torch.ones(len(t), dtype=torch.float64)
        schedule = self.process.schedule
        return self.weighting(levels.snr) / sensitivity(self.process.prediction_type, levels, schedule.sigma_data).square()


def sensitivity(prediction_type: str, levels: Levels, sigma_data: float) -> Tensor:
    """dm/dx0 at a given state: by how much the error of a prediction m is that of x0. With ε = (x − alpha·x0)/sigma, of m = u·x0 +
    w·ε it is u − w·alpha/sigma."""
    u, w = target_weights(prediction_type, levels.alpha, levels.sigma, sigma_data)
    return torch.as_tensor(u - w * levels.alpha / levels.sigma)


def drawn_times(times: TimeSampler, count: int, generator: torch.Generator, place: Place | None) -> Times:
    """Times of a batch of ``count`` samples, or of those at a place of a larger one."""
    if place is None:
        return times.sample(count, generator)
    whole = times.sample(place.batch, generator)
    return Times(*(value[place.first : place.first + count] for value in whole))


def tell(times: TimeSampler, t: Tensor, losses: Tensor) -> None:
    """Let a sampler of times hear what those (B,) that were drawn have cost, if it wants to."""
    if isinstance(times, Listening):
        times.update(t, losses)


def drawn_noise(x0: Tensor, generator: torch.Generator, place: Place | None, offset: float = 0.0) -> Tensor | Place:
    """Standard normal noise of the shape of x0, drawn on the CPU; with ``offset`` times one number per sample and channel. A place
    stands for its noise where nothing is added to it."""
    if place is not None and not offset:
        return place
    noise = torch.randn(x0.shape, generator=generator) if place is None else place.normals(x0.shape)
    if offset:
        each = (*x0.shape[:2], *(1,) * (x0.ndim - 2))
        noise += offset * (torch.randn(each, generator=generator) if place is None else place.normals(each, STREAM_TRAINING_REST))
    return noise.to(x0.device)


def drop_conditions(
    cond: Conditions, null: Mapping[str, float], probability: float, generator: torch.Generator, place: Place | None = None
) -> dict[str, Tensor]:
    """Conditioning with that of some samples, drawn with ``probability``, replaced by its null values, all of a sample's together
    (Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, Algorithm 1).

    Args:
        cond: By name, each (B, ...).
        null: The null value of each.
        probability: From 0 to 1.
        generator: Draws who loses it, on the CPU.
        place: Of a part of a batch, in a run: the draw is the part's of one for the whole batch.

    Raises:
        ArgumentError: a null value is missing, or the probability is none.

    Example:
        >>> import torch
        >>> from diffuse_fast.training.objectives import drop_conditions
        >>> drop_conditions({"label": torch.tensor([3, 4])}, {"label": 10}, 1.0, torch.Generator())
        {'label': tensor([10, 10])}
    """
    if not 0.0 <= probability <= 1.0:
        raise ArgumentError(f"probability is {probability!r}; it must be from 0 to 1.")
    if missing := [name for name in cond if name not in null]:
        raise ArgumentError(f"null lacks {missing[0]!r}, which cond has.")
    if not cond:
        return {}
    batch = len(next(iter(cond.values())))
    drop = share(batch, place, lambda count: torch.rand(count, generator=generator)) < probability

    def dropped(value: Tensor, replacement: float) -> Tensor:
        where = drop.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))
        return torch.where(where, torch.full_like(value, replacement), value)

    return {name: dropped(value, null[name]) for name, value in cond.items()}
