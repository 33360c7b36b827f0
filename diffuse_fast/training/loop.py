"""The training loop: Algorithm 1 of DDPM (Ho et al. 2020) with a moving average of the weights."""

from __future__ import annotations

import copy
import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import ArgumentError, TrainingError
from .config import TrainConfig
from .objectives import ForwardProcess, simple_loss
from .objectives.objective import AnyObjective
from .progress import progress_bar

if TYPE_CHECKING:
    from ..schedule import Schedule


@dataclass(frozen=True)
class TrainRecord:
    """What happened in a run: the losses of every step, how long it took, and what it would take to repeat it."""

    config: TrainConfig
    losses: tuple[float, ...]
    seconds: float
    parameters: int
    samples: int
    threads: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain data. The losses are averaged over fifty equal stretches of the run."""
        stretches = np.array_split(np.array(self.losses), min(50, len(self.losses)))
        return {
            **dataclasses.asdict(self),
            "losses": [float(f"{stretch.mean():.5g}") for stretch in stretches],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class TrainResult:
    """The trained network (moving average of the weights, in eval mode) and the record of the run."""

    network: nn.Module
    record: TrainRecord


def train(
    network: nn.Module,
    data: np.ndarray | Tensor,
    labels: np.ndarray | Tensor | None = None,
    *,
    schedule: Schedule | None = None,
    objective: AnyObjective | None = None,
    config: TrainConfig | None = None,
    progress: bool = False,
    callback: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train a network to predict the noise of a diffusion process (or x0, or v).

    On one thread the result is a function of the arguments alone: the same weights, data, schedule and configuration
    give the same bits. The given network is trained in place and keeps its last weights; the caller's random state is
    left as it was.

    Args:
        network: Called as ``network(x, t)``, or ``network(x, t, label)`` with labels; x (B, *shape) float32, t (B,)
            int64, label (B,) int64. With labels it has the attribute ``num_classes``, which is also the number of its
            null class.
        data: (N, *shape), real numbers in the network's value range, usually [-1, 1].
        labels: (N,) whole numbers in [0, ``num_classes``), or None.
        schedule: The noise schedule; training draws its integer times uniformly. None with an objective, which has its own.
        objective: What to train for instead of L_simple: one of :mod:`diffuse_fast.training.objectives`. The network is then
            called ``network(x, t, label=label)`` with the time that the objective tells, and the objective's own parameters,
            where it has any, are trained with the network's.
        config: Steps, rates, objective, seed; see :class:`TrainConfig`.
        progress: Show a progress bar (lines of text where rich is not installed).
        callback: Called with the step (from 1) and its loss after every step.

    Returns:
        The moving average of the network and the record of the run.

    Raises:
        ArgumentError: data or labels have a wrong shape, type or range, or are not finite.
        TrainingError: There are fewer samples than a batch, or a loss is not finite; the message names the step.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> from diffuse_fast.training import TrainConfig
        >>> data = np.random.default_rng(0).standard_normal((64, 1, 8, 8))
        >>> config = TrainConfig(steps=2, batch_size=8, warmup_steps=0)
        >>> result = df.train(df.nn.UNet(1, channels=32), data, schedule=df.Schedule.cosine(), config=config)
        >>> len(result.record.losses)
        2
    """
    config = config or TrainConfig()
    x0, label = _checked(network, data, labels, config)
    if (schedule is None) == (objective is None):
        raise ArgumentError("give a schedule, or an objective, which has its own; not both.")
    forward_process = None if schedule is None else ForwardProcess(schedule, config.prediction_type)
    parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
    own = [p for p in objective.parameters() if p.requires_grad] if isinstance(objective, nn.Module) else []
    optimizer = torch.optim.AdamW([*parameters, *own], lr=config.learning_rate, weight_decay=config.weight_decay)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    averaged: list[Tensor] = [
        a for a, p in zip(average.parameters(), network.parameters(), strict=True) if p.requires_grad
    ]

    generator = torch.Generator().manual_seed(config.seed)
    batches = _batches(len(x0), config.batch_size, generator)
    losses: list[float] = []
    started = time.perf_counter()
    network.train()
    with torch.random.fork_rng(devices=[]), progress_bar(config.steps, shown=progress) as report:
        torch.manual_seed(config.seed)  # for dropout, which draws from the global generator
        for step in range(1, config.steps + 1):
            batch = next(batches)
            condition = None
            if forward_process is not None:
                t = torch.randint(forward_process.num_train_timesteps, (len(batch),), generator=generator)
                noise = torch.randn((len(batch), *x0.shape[1:]), generator=generator)
                x_t, target = forward_process(x0[batch], t, noise)
            if label is not None:
                condition = _dropped(label[batch], network.num_classes, config.condition_dropout, generator)

            if objective is None:
                loss = simple_loss(network, x_t, t, target, condition)
            else:
                cond = None if condition is None else {"label": condition}
                loss = objective(network, x0[batch], cond, generator=generator).loss
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss of step {step} is {value}. Lower the learning rate (it is {config.learning_rate:g}) or "
                    f"the gradient clip (it is {config.gradient_clip}), and look for extreme values in the data."
                )
            optimizer.zero_grad()
            loss.backward()
            if config.gradient_clip is not None:
                nn.utils.clip_grad_norm_([*parameters, *own], config.gradient_clip)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate_factor(step, config)
            optimizer.step()
            with torch.no_grad():
                # The decay rises to its value, so that the average soon forgets the random start.
                decay = min(config.ema_decay, step / (step + 10))
                torch._foreach_lerp_(averaged, parameters, 1.0 - decay)
            losses.append(value)
            report(step, value)
            if callback is not None:
                callback(step, value)

    for kept, last in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(last)
    record = TrainRecord(
        config=config,
        losses=tuple(losses),
        seconds=time.perf_counter() - started,
        parameters=sum(p.numel() for p in network.parameters()),
        samples=len(x0),
        threads=torch.get_num_threads(),
        versions={
            "diffuse_fast": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )  # fmt: skip
    return TrainResult(average, record)


def rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 1) as a part of ``config.learning_rate``: linear warm-up, then half a cosine
    to 0."""
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _batches(samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices: every sample once per pass, each pass in a new order, no remainder thrown away."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(samples, generator=generator)])
        yield order[:batch_size]
        order = order[batch_size:]


def _dropped(label: Tensor, null: Any, probability: float, generator: torch.Generator) -> Tensor:
    drop = torch.rand(label.shape, generator=generator) < probability
    return torch.where(drop, torch.full_like(label, null), label)


def _checked(
    network: nn.Module, data: np.ndarray | Tensor, labels: np.ndarray | Tensor | None, config: TrainConfig
) -> tuple[Tensor, Tensor | None]:
    x0 = torch.as_tensor(data)
    if x0.ndim < 2 or x0.is_complex() or x0.dtype == torch.bool:
        raise ArgumentError(
            f"data is {tuple(x0.shape)} of {x0.dtype}; it must be real numbers of the shape (samples, *shape)."
        )
    x0 = x0.to(torch.float32)
    if not x0.isfinite().all():
        raise ArgumentError("data has values that are not finite; remove or repair those samples.")
    if len(x0) < config.batch_size:
        raise TrainingError(
            f"there are {len(x0)} samples, too few for a batch of {config.batch_size}; lower batch_size."
        )

    num_classes = getattr(network, "num_classes", None)
    if labels is None:
        return x0, None
    if num_classes is None:
        raise ArgumentError("labels were given, but the network has no num_classes; build it with num_classes=...")
    label = torch.as_tensor(labels)
    if label.shape != (len(x0),) or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise ArgumentError(
            f"labels are {tuple(label.shape)} of {label.dtype}; they must be {len(x0)} whole numbers, one per sample."
        )
    label = label.to(torch.int64)
    if (label < 0).any() or (label >= num_classes).any():
        raise ArgumentError(
            f"labels go from {label.min().item()} to {label.max().item()}; "
            f"a network of {num_classes} classes takes 0 to {num_classes - 1}."
        )
    return x0, label
