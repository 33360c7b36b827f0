"""The training loop: Algorithm 1 of DDPM (Ho et al. 2020) with a moving average of the weights."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import __version__
from ...errors import ArgumentError, ArgumentTypeError, OutputError, TrainingError
from ..config.train_config import TrainConfig
from ..data.arrays import Arrays
from ..data.generated import Generated
from ..data.source import Batch, Source
from ..objectives import Objective
from ..objectives.objective import AnyObjective
from . import checkpoint as checkpoints
from .batch_order import BatchOrder
from .description import description, output_spec
from .distributed import any_process, first_process_only, mean, rank, world
from .interrupts import postponed
from .logs import Logs
from .previews import preview
from .progress import progress_bar
from .results import TrainRecord, TrainResult
from .state import TrainState

if TYPE_CHECKING:
    from ...schedule import Schedule

log = logging.getLogger(__name__)


def train(
    network: nn.Module,
    data: np.ndarray | Tensor | Source | Generated,
    labels: np.ndarray | Tensor | None = None,
    *,
    schedule: Schedule | None = None,
    objective: AnyObjective | None = None,
    config: TrainConfig | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    clip: tuple[float, float] | None = None,
    progress: bool = False,
    callback: Callable[[int, float], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a network to predict the noise of a diffusion process (or x0, or v).

    On one thread of the CPU the result is a function of the arguments alone: the same weights, data, schedule and configuration
    give the same bits, whether the run is interrupted and resumed or not. The network is trained in place, on its device, and
    keeps its last weights; the caller's random state does not change. If ``torch.distributed`` is initialised, as under
    ``torchrun``, every process calls this with the same arguments.

    Args:
        network: Called as ``network(x, t)``, or ``network(x, t, label=label)`` with labels; x (B, *shape) float32, t (B,)
            int64 or in the objective's time convention, label (B,) int64. With labels it has the attribute ``num_classes``, which
            is also the index of its null class.
        data: (N, *shape), real numbers in the network's value range, usually [-1, 1], or uint8 or uint16, which become [-1, 1]
            (see :class:`~.data.Arrays`); or a source of :mod:`diffuse_fast.training.data`, which has its own labels.
        labels: (N,) integers in [0, ``num_classes``), or None.
        schedule: The noise schedule, with uniform times; None if an objective is given, which has its own.
        objective: The objective, from :mod:`diffuse_fast.training.objectives`; None is L_simple. Its parameters, if it has any, are
            trained with the network's.
        config: Steps, rates, seed; see :class:`TrainConfig`.
        folder: Folder for checkpoints, logs and sample grids, made if it does not exist; None writes nothing.
        resume: Resume from the last intact checkpoint in the folder, if there is one.
        evaluate: Called with the averaged network every ``evaluate_every`` steps and at the end; its values are logged.
        clip: The range that sample grids clip x0 to.
        progress: Show a progress bar (lines of text without rich or a terminal).
        callback: Called with the step (from 1) and its loss after every step.
        about: JSON data to store in every checkpoint.

    With a folder, Ctrl-C and SIGTERM wait for the end of the step and write a checkpoint; a second signal stops at once. The
    caller's own signal handlers are not replaced.

    Returns:
        The moving average of the network and the record of the run.

    Raises:
        ArgumentTypeError: the objective has a wrong signature (see :class:`~.objectives.objective.AnyObjective`).
        ArgumentError: data or labels have a wrong shape, type or range, or are not finite; the folder has a run already and
            ``resume`` is False; the resumed run had another configuration, schedule, data or network.
        TrainingError: there are fewer samples than a batch, or a loss is not finite; the message names the step and the last
            checkpoint.
        OutputError: the folder cannot be written, for example on a full disk.

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
    if (schedule is None) == (objective is None):
        raise ArgumentError("give either a schedule or an objective, which has its own schedule.")
    if objective is None:
        assert schedule is not None
        objective = Objective(schedule, config.prediction_type)
    _check_signature(objective)
    source = _source(data, labels)
    _fits(network, source, config)
    if resume and folder is None:
        raise ArgumentError("resume needs the folder of the run.")
    cuda = [p.device for p in network.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=cuda):
        run = _Run(network, source, objective, config, None if folder is None else Path(folder), clip, evaluate, about)
        run.open(resume)
        return run.go(progress, callback)


def rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 1) relative to ``config.learning_rate``: linear warm-up, then half a cosine to 0."""
    if step <= config.warmup:
        return step / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done))


class _Run:
    """One training run."""

    def __init__(
        self,
        network: nn.Module,
        source: Source | Generated,
        objective: AnyObjective,
        config: TrainConfig,
        folder: Path | None,
        clip: tuple[float, float] | None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
        about: Mapping[str, Any] | None,
    ):
        self.about = about
        self.network, self.source, self.config = network, source, config
        self.folder, self.clip, self.evaluate = folder, clip, evaluate
        self.parts, self.micro_batch = _parts(config)
        self.device = next(iter(network.parameters())).device
        self.order = BatchOrder(source, config.seed)
        network.train()
        copied = world() > 1 and not config.sharded
        self.state = TrainState(network, objective, config, self._batch(0, self.micro_batch) if copied else None)
        self.losses: list[float] = []
        self.seconds = 0.0

    # ---- the folder ---------------------------------------------------------------------------

    def open(self, resume: bool) -> None:
        """Make or find the folder, and load the last checkpoint if ``resume``."""
        self.logs = Logs(None, 0, tensorboard=False)
        if self.folder is None:
            return
        with first_process_only() as here:
            if here:
                _make(self.folder)
                if not resume and (old := checkpoints.found(self.folder)):
                    raise ArgumentError(f"{self.folder} has a run already ({old[-1].name}); resume it, or choose another folder.")
                checkpoints.sweep(self.folder)
        last = checkpoints.newest(self.folder) if resume else None
        if last is not None:
            if different := checkpoints.differences(last.document["run"], self._described()):
                what = "; ".join(different)
                raise ArgumentError(f"the run in {self.folder} had other settings: {what}. Resume it with the same settings.")
            tensors = dict(last.tensors)
            self.losses = tensors.pop("losses").tolist()
            if len(self.losses) > self.config.steps:
                done = len(self.losses)
                steps = self.config.steps
                raise ArgumentError(f"steps is {steps}, but the run in {self.folder} has done {done}; give at least {done}.")
            self.seconds = last.document["seconds"]
            self.state.load(tensors)
        with first_process_only() as here:
            if here:
                self.logs = Logs(self.folder, len(self.losses), tensorboard=self.config.tensorboard)

    def _described(self) -> dict[str, Any]:
        """The JSON data that must be the same when the run is resumed."""
        source = self.source
        return {
            "config": self.config.binding(),
            "objective": description(self.state.objective),
            "data": {
                "samples": None if isinstance(source, Generated) else len(source), "shape": list(source.shape),
                "num_classes": source.num_classes,
            },
        }  # fmt: skip

    def save(self, step: int) -> None:
        """Write a checkpoint. Every process must call this."""
        if self.folder is None:
            return
        tensors = self.state.tensors()
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        with first_process_only() as here:
            if here:
                document = {
                    "step": step, "seconds": self.seconds, "run": self._described(), "versions": _versions(), "about": self.about,
                }  # fmt: skip
                checkpoints.save(self.folder, step, tensors, document, self.config.keep_checkpoints)

    # ---- the steps ----------------------------------------------------------------------------

    def go(self, progress: bool, callback: Callable[[int, float], None] | None) -> TrainResult:
        config, start = self.config, len(self.losses)
        began, before, stretch = time.perf_counter(), self.seconds, (start, time.perf_counter())
        norms: list[float] = []
        shown = progress and rank() == 0
        try:
            with (
                postponed(self.folder is not None) as caught,
                progress_bar(config.steps, shown=shown, start=start, batch_size=config.batch_size) as report,
            ):
                for step in range(start + 1, config.steps + 1):
                    rate = config.learning_rate * rate_factor(step, config)
                    loss, norm = self.step(step, rate)
                    self.losses.append(loss)
                    norms.append(norm)
                    now = time.perf_counter()
                    self.seconds = before + now - began
                    report(step, loss)
                    if callback is not None:
                        callback(step, loss)
                    last = step == config.steps
                    if step % config.log_every == 0 or last:
                        count, seconds = step - stretch[0], max(now - stretch[1], 1e-9)
                        with first_process_only():
                            self.logs.line(
                                {
                                    "step": step,
                                    "loss": float(np.mean(self.losses[-count:])),
                                    "gradient_norm": float(np.mean(norms)),
                                    "learning_rate": rate,
                                    "samples_per_second": count * config.batch_size / seconds,
                                    "seconds": self.seconds,
                                }
                            )
                        stretch, norms = (step, now), []
                    # Before the checkpoint: a resumed run may repeat this, but never omits it.
                    self.preview_and_evaluate(step, last)
                    stopped = self.folder is not None and any_process(bool(caught), self.device)
                    if step % config.checkpoint_every == 0 or last or stopped:
                        self.save(step)
                    if stopped:
                        break
        finally:
            self.logs.close()
        if len(self.losses) < config.steps:
            self._end(caught)
        source = self.source
        record = TrainRecord(
            config=config,
            losses=tuple(self.losses),
            seconds=self.seconds,
            parameters=sum(p.numel() for p in self.state.average.parameters()),
            samples=None if isinstance(source, Generated) else len(source),
            threads=torch.get_num_threads(),
            processes=world(),
            broken=tuple(getattr(source, "broken", ())),
            versions=_versions(),
        )
        return TrainResult(self.state.averaged(), record)

    def step(self, step: int, rate: float) -> tuple[float, float]:
        """Take one optimizer step; returns the loss and the norm of its gradient."""
        own = self.parts // world()
        total = torch.zeros((), device=self.device)
        times: list[Tensor] = []
        costs: list[Tensor] = []
        self.state.optimizer.zero_grad()
        for i in range(own):
            offset = (rank() * own + i) * self.micro_batch
            first = (step - 1) * self.config.batch_size + offset
            # If this fails on one process, torchrun ends the others.
            x0, label = self._batch(first, first + self.micro_batch)
            accumulate = i < own - 1 and isinstance(self.state.forward, nn.parallel.DistributedDataParallel)
            with self.state.forward.no_sync() if accumulate else contextlib.nullcontext():  # type: ignore[operator]  # DDP's
                loss, each, t = self.state.forward(x0, label, step, offset)
                loss = loss / own
                total += loss.detach()
                loss.backward()
            times.append(t)
            costs.append(each)
        value = mean(total).item()
        if not math.isfinite(value):
            raise TrainingError(self._stopped(f"the loss of step {step} is {value}"))
        norm = self.state.apply(step, rate)
        if not math.isfinite(norm):
            raise TrainingError(self._stopped(f"the gradient of step {step} is {norm}"))
        self.state.update_times(times, costs)
        return value, norm

    def _batch(self, start: int, stop: int) -> Batch:
        """Samples of the run, on the network's device."""
        x0, label = self.order.take(start, stop)
        _labels_fit(label, getattr(self.network, "num_classes", None))
        return x0.to(self.device, non_blocking=True), None if label is None else label.to(self.device, non_blocking=True)

    def _end(self, caught: list[int]) -> None:
        """Raise the signal that stopped the run."""
        step = len(self.losses)
        if rank() == 0:
            text = "stopped after step %d of %d, with a checkpoint in %s; resume continues from it"
            log.warning(text, step, self.config.steps, self.folder)
        if caught:
            sys.stdout.flush()  # SIGTERM ends the process here
            signal.raise_signal(caught[0])
        raise TrainingError(f"another process received a signal to stop, after step {step}.")

    def _stopped(self, what: str) -> str:
        kept = checkpoints.found(self.folder) if self.folder is not None else []
        last = f" The last checkpoint is {kept[-1]}." if kept else ""
        return (
            f"{what}. Lower the learning rate (it is {self.config.learning_rate:g}) or the gradient clip (it is "
            f"{self.config.gradient_clip}), and look for extreme values in the data.{last}"
        )

    def preview_and_evaluate(self, step: int, last: bool) -> None:
        """Draw a sample grid and call ``evaluate``, if they are due."""
        every = self.config.sample_every
        spec = output_spec(self.state.objective)
        drawn = self.folder is not None and spec is not None and every is not None and (step % every == 0 or last)
        measured = self.evaluate is not None and (step % self.config.evaluate_every == 0 or last)
        if not (drawn or measured):
            return
        average = self.state.averaged()
        with first_process_only() as here:
            if here and measured:
                assert self.evaluate is not None
                self.logs.metrics(step, self.evaluate(average))
            if here and drawn:
                assert self.folder is not None and spec is not None
                levels = preview(average, self.folder, step, shape=self.source.shape, spec=spec, clip=self.clip)
                if levels is not None:
                    self.logs.image(step, levels)


def _make(folder: Path) -> None:
    try:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}.") from error


def _versions() -> dict[str, str]:
    return {
        "diffuse_fast": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip


# ---- arguments ----------------------------------------------------------------------------------


def _source(data: Any, labels: Any) -> Source | Generated:
    if not isinstance(data, np.ndarray | Tensor):
        if not hasattr(data, "shape") or not (hasattr(data, "fetch") or isinstance(data, Generated)):
            raise ArgumentError(f"data is a {type(data).__name__}; it must be an array or a source of diffuse_fast.training.data.")
        if labels is not None:
            raise ArgumentError("labels were given with a source of data, which has its own.")
        return data
    source = Arrays(data, labels)
    if not (data.isfinite() if isinstance(data, Tensor) else np.isfinite(data)).all():
        raise ArgumentError("data has values that are not finite; remove or repair those samples.")
    return source


def _fits(network: nn.Module, source: Source | Generated, config: TrainConfig) -> None:
    """Check that network, data and configuration fit together."""
    if not isinstance(source, Generated) and len(source) < config.batch_size:
        raise TrainingError(f"there are {len(source)} samples, too few for a batch of {config.batch_size}; lower batch_size.")
    if source.num_classes is None:
        return
    classes = getattr(network, "num_classes", None)
    if classes is None:
        raise ArgumentError("labels were given, but the network has no num_classes; build it with num_classes=...")
    if source.num_classes > classes:
        raise ArgumentError(f"labels go up to {source.num_classes - 1}; a network of {classes} classes takes 0 to {classes - 1}.")


def _check_signature(objective: AnyObjective) -> None:
    given = inspect.signature(objective).parameters.values()
    if not any(p.name == "position" or p.kind is p.VAR_KEYWORD for p in given):
        name = getattr(objective, "__name__", type(objective).__name__)
        raise ArgumentTypeError(f"objective {name} must take (network, x0, cond, *, generator, position).")


def _labels_fit(label: Tensor | None, classes: int | None) -> None:
    if label is not None and classes is not None and len(bad := label[(label < 0) | (label >= classes)]):
        raise ArgumentError(f"there is a label {bad[0].item()}; a network of {classes} classes takes 0 to {classes - 1}.")


def _parts(config: TrainConfig) -> tuple[int, int]:
    """The number of parts of a batch, over all processes, and their size."""
    size = config.micro_batch
    if size is None:
        if config.batch_size % world():
            raise ArgumentError(f"batch_size is {config.batch_size}; {world()} processes cannot share it evenly.")
        size = config.batch_size // world()
    parts = config.batch_size // size
    if parts % world():
        raise ArgumentError(
            f"micro_batch is {size}, which makes {parts} parts of a batch of {config.batch_size}; {world()} processes cannot share "
            "them evenly."
        )
    return parts, size
