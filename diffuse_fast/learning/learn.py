"""``learn_solver``: learn a plan for a model and a number of steps, and store it in the artifact."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact.document import LEARNED
from ..checks import require_int
from ..engine.sample import load_cached
from ..errors import ArgumentError, ArgumentTypeError
from ..files import writable
from ..model import Model, rewritten
from ..planning import resolve_clip, resolve_prediction_type, resolve_schedule, resolve_shape
from ..plans.plan import MAX_REGISTERS, DynamicThreshold, Plan
from ..schedule import Schedule
from . import baseline
from .baseline import Baseline
from .fit import fit
from .table import Multistep, of_plan, to_plan
from .task import Task

SAMPLES, HELD_OUT = 256, 512
HISTORY = 4  # past data predictions in a row
ITERATIONS = 10
REFERENCE_STEPS = 200
BATCH_SIZE = 64
STARTS = 3  # hand-made solvers from which the fit starts
MIN_DIFFERENCE = 0.02  # of their grids, relative to the range of times
TRIED, TRIED_ON = 3, 64  # iterations and samples before only the best start continues


@dataclass(frozen=True)
class Distance:
    """A plan, and its RMS distance to the fine solver's results over held-out samples and elements.

    Attributes:
        name: ``learned``, or a hand-made solver with its options.
        plan: The plan.
        distance: The distance, in the units of the data.
    """

    name: str
    plan: Plan
    distance: float


@dataclass(frozen=True)
class Learned:
    """The result of :func:`learn_solver`.

    Attributes:
        plan: The learned plan.
        distance: Its distance on the held-out samples.
        best: The best hand-made solver on its best spacing.
        best_default: The best hand-made solver with its defaults.
        model: The artifact with the plan, if ``out`` was given.
    """

    plan: Plan
    distance: float
    best: Distance
    best_default: Distance
    model: Model | None = None

    def table(self) -> list[tuple[str, float, float]]:
        """Name, distance, and the learned plan's distance relative to it, of each plan compared."""
        rows = [(d.name, d.distance) for d in (self.best_default, self.best)] + [(LEARNED, self.distance)]
        return [(name, distance, self.distance / distance if distance > 0.0 else math.inf) for name, distance in rows]


def learn_solver(
    model: Any,
    steps: int,
    *,
    out: str | os.PathLike[str] | None = None,
    samples: int = SAMPLES,
    held_out: int = HELD_OUT,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    schedule: Schedule | None = None,
    prediction_type: str | None = None,
    variance: str | None = None,
    input_scale: str | None = None,
    clip: tuple[float, float] | bool | None = None,
    history: int = HISTORY,
    iterations: int = ITERATIONS,
    reference_steps: int = REFERENCE_STEPS,
    batch_size: int = BATCH_SIZE,
    runtime: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Learned:
    """Learn a solver for a model and a number of steps: a plan whose results approximate those of a fine solver.

    First all hand-made solvers are tried with every spacing. Starting from the best, the times and weights of a linear multistep
    method are fitted to the fine solver's results by least squares (``docs/learned-solvers.md``). Neither stage needs the
    network's gradient or torch.

    Args:
        model: As for :func:`~diffuse_fast.sample`.
        steps: Number of steps, each with one network call, at least 1.
        out: File to write the artifact with the plan to; it may be the model's own file. An existing plan of this number of steps
            is replaced; other plans stay. None writes nothing.
        samples: Number of samples for fitting. held_out: Number of samples for the returned distances. Both are those of
            ``df.sample(model, ..., seed=seed)``, in this order. seed: Their seed.
        cond: Values to draw the samples' conditions from, by input name: (k, *shape of the input). Inputs with equally many
            values are drawn together. Default: all classes of a label, else the null value.
        shape, schedule, prediction_type: Known from an artifact; required for a bare network.
        variance, input_scale: As for :func:`~diffuse_fast.sample`.
        clip: As for :func:`~diffuse_fast.sample`; the fine solver clips in the same way. No dynamic threshold.
        history: Number of past data predictions in a row, 0 to 8.
        iterations: Maximum iterations of the fit.
        reference_steps: Steps of the fine solver.
        batch_size: Samples per network call.
        runtime: As for :func:`~diffuse_fast.sample`.
        progress: Called with lines of text on the progress.

    Returns:
        The plan and its distance, and those of the hand-made solvers. The plan is learned without guidance; with guidance it runs,
        but it was fitted to another equation.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is out of range, or required information on the model is missing.
        OutputError: ``out`` cannot be written; checked first.

    Example:
        >>> import diffuse_fast as df
        >>> learned = df.learn_solver("digits", 5, out="digits.onnx")           # doctest: +SKIP
        >>> df.sample(learned.model, 4, 5, solver="learned").shape               # doctest: +SKIP
        (4, 1, 8, 8)
    """
    (learned,) = learn_each(
        model,
        [steps],
        out=out,
        samples=samples,
        held_out=held_out,
        seed=seed,
        cond=cond,
        shape=shape,
        schedule=schedule,
        prediction_type=prediction_type,
        variance=variance,
        input_scale=input_scale,
        clip=clip,
        history=history,
        iterations=iterations,
        reference_steps=reference_steps,
        batch_size=batch_size,
        runtime=runtime,
        progress=progress,
    )
    return learned


def learn_each(
    model: Any,
    steps: Sequence[int],
    *,
    out: Any = None,
    samples: int = SAMPLES,
    held_out: int = HELD_OUT,
    seed: int = 0,
    cond: Any = None,
    shape: Any = None,
    schedule: Any = None,
    prediction_type: Any = None,
    variance: str | None = None,
    input_scale: str | None = None,
    clip: Any = None,
    history: int = HISTORY,
    iterations: int = ITERATIONS,
    reference_steps: int = REFERENCE_STEPS,
    batch_size: int = BATCH_SIZE,
    runtime: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Iterator[Learned]:
    """:func:`learn_solver` for several numbers of steps with one run of the fine solver; each plan is stored when it is done."""
    for count in steps:
        require_int("steps", count, 1)
    for name, value, least in (
        ("samples", samples, 1),
        ("held_out", held_out, 1),
        ("iterations", iterations, 0),
        ("reference_steps", reference_steps, max(steps)),
        ("batch_size", batch_size, 1),
        ("history", history, 0),
        ("seed", seed, 0),
    ):
        require_int(name, value, least)
    if history > MAX_REGISTERS:
        raise ArgumentError(f"history is {history}; it must be at most {MAX_REGISTERS}, the registers of a plan.")
    if isinstance(model, str | Path):
        model = load_cached(model)
    known = model if isinstance(model, Model) else None
    target = None if out is None else _target(known, out)
    clipped = resolve_clip(clip, known)
    if isinstance(clipped, DynamicThreshold):
        raise ArgumentError("clip is a dynamic threshold; a learned plan clips statically, or not.")
    say = progress or (lambda line: None)
    task = Task(
        model,
        schedule=resolve_schedule(schedule, known),
        prediction_type=resolve_prediction_type(prediction_type, known),
        clip=clipped,
        shape=resolve_shape(shape, known),
        variance=variance,
        input_scale=input_scale,
        samples=samples,
        held_out=held_out,
        seed=seed,
        cond=cond,
        reference_steps=reference_steps,
        batch_size=batch_size,
        runtime=runtime,
        report=say,
    )
    for count in steps:
        say(f"{count} steps")
        learned = _learn(task, count, history, iterations, say)
        if known is not None and target is not None:
            known = store(known, [learned.plan], target)
            learned = replace(learned, model=known)
        yield learned


def _learn(task: Task, steps: int, history: int, iterations: int, say: Callable[[str], None]) -> Learned:
    ranked, default = baseline.search(task, steps, say)
    best = ranked[0]
    starts = _starts(task, ranked, steps)
    if not starts:
        raise ArgumentError(f"no hand-made solver of {steps} network calls is a multistep method to start from.")
    fits = []
    first, few = min(TRIED, iterations), min(TRIED_ON, task.samples)
    for start, method in starts:
        say(f"from {start}, distance {start.distance:.4f}")
        fits.append((*fit(task, method, history=history, iterations=first, samples=few, report=say), start))
    method, _, start = min(fits, key=lambda f: f[1])
    say(f"on from {start}")
    method, _ = fit(task, method, history=history, iterations=iterations - first, samples=task.samples, report=say)
    record = {
        **task.plan_options,
        "start": str(start),
        "reference": task.reference_name,
        "samples": task.samples,
        "seed": task.seed,
        "clip": None if task.clip is None else tuple(map(float, task.clip)),
    }
    plan = to_plan(method, task.grid, record)
    far = [
        Distance(name, p, task.distance(p, held_out=True))
        for name, p in ((LEARNED, plan), (str(best), best.plan), (str(default), default.plan))
    ]
    return Learned(plan, far[0].distance, best=far[1], best_default=far[2])


def _starts(task: Task, ranked: Sequence[Baseline], steps: int) -> list[tuple[Baseline, Multistep]]:
    """The best hand-made solvers of this form whose grids differ; the fit is local."""
    found: list[tuple[Baseline, Multistep]] = []
    difference = MIN_DIFFERENCE * (task.schedule.t_max - task.schedule.t_min)
    for b in ranked:
        method = of_plan(b.plan, task.schedule)
        if method is None or method.steps != steps:
            continue
        if all(np.max(np.abs(method.times - other.times)) > difference for _, other in found):
            found.append((b, method))
    return found[:STARTS]


def store(model: Model, plans: Sequence[Plan], out: str | os.PathLike[str]) -> Model:
    """Write a model with additional plans, which replace those of the same number of steps.

    Args:
        model: The model. Its file does not change, unless ``out`` is that file.
        plans: Learned plans.
        out: The file to write; a model with external weights can only be written to its own folder.

    Returns:
        The written file, loaded.

    Raises:
        ArgumentError, OutputError: as for :func:`learn_solver`. ArtifactError: a plan does not fit the model.
    """
    target = _target(model, out)
    kept = {plan.steps: plan for plan in (*model.plans, *plans)}
    return rewritten(model, target, plans=tuple(kept[n] for n in sorted(kept)))


def _target(model: Model | None, out: Any) -> Path:
    if model is None:
        raise ArgumentError("out is given, but the model is not an artifact, which can store a plan; export it first (df.export).")
    if not isinstance(out, str | os.PathLike):
        raise ArgumentTypeError(f"out is a {type(out).__name__}; it must be the path of the file to write.")
    target = Path(out)
    if target.suffix != ".onnx":
        raise ArgumentError(f"out is {str(target)!r}; it must end in '.onnx'.")
    writable(target)
    if model.external and target.parent.resolve() != model.path.parent:
        raise ArgumentError(
            f"out is in another folder than {model.path.name}, whose weights are in {model.external[0].name} beside it; write it "
            f"there."
        )
    return target
