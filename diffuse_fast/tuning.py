"""``tune``: which runtime, threads and parts run a model fastest on this machine. The one place where anything is timed."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .engine.arguments import whole
from .engine.conditioning import conditions
from .engine.sample import loaded
from .errors import ArgumentError, ArgumentTypeError, DiffuseFastError
from .model import Model
from .runtimes import BoundCall, network
from .runtimes import choices as cache
from .runtimes.choices import Choice
from .runtimes.registry import RUNTIMES

# Two runtimes sum in other orders: some 1e-6 of the scale apart. Another function differs by the scale itself.
ROUNDING = 1e-4

_TURN = 0.02  # seconds that a candidate runs at a stretch
_LEAST = 5  # turns that a median is taken of
_SLOW = 1.3  # times the fastest: out after the first turns


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a batch, and what was found of it.

    Attributes:
        choice: How it is run; ``seconds`` is the median.
        batch: Samples in a call.
        error: Root mean square of its difference to the float32 reference, relative to that of the reference; the largest over
            three times. NaN where it did not run.
        p20, p80: Seconds of a call, 20th and 80th percentile over the turns; NaN where it was not timed.
        turns: How often it was timed.
        refused: Why it was not timed; None where it was.
    """

    choice: Choice
    batch: int
    error: float = float("nan")
    p20: float = float("nan")
    p80: float = float("nan")
    turns: int = 0
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """What :func:`tune` found.

    Attributes:
        candidates: All that was tried.
        best: The fastest, by precision and by batch size.
        file: Where the answer is kept; None where none is.
    """

    candidates: tuple[Candidate, ...]
    best: dict[str, dict[int, Choice]] = field(default_factory=dict)
    file: Path | None = None


def tune(
    model: str | Path | Model,
    batch_sizes: Sequence[int] = (1, 16),
    *,
    precisions: Sequence[str] = ("float32",),
    runtimes: Sequence[str] | None = None,
    seconds: float = 4.0,
    max_error: float = 0.05,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Tuning:
    """Time the ways to run a model's network on this machine, and remember the fastest: ``runtime="auto"`` then takes it.

    Candidates are the installed runtimes, with one thread to all cores inside a call, and a batch whole or split over the cores.
    Each is compared with onnxruntime (else the first runtime) in float32 on one thread before it is timed; what differs is not
    timed. They run in turns, so that what else the machine does hits all of them, and the least median wins. Those 1.3 times as
    slow as the fastest after the first turns go.

    The answer holds for this artifact, processor, number of cores and these versions, and for the batch sizes of *network calls*
    nearest in ratio to a tuned one: guidance doubles the batch. The answer of one precision is never taken for another.

    Args:
        model: An artifact: its path, a bundled name or a ``df.Model``.
        batch_sizes: Samples in a network call.
        precisions: What may be computed in; ``float32`` is what ``df.sample`` asks for unless told otherwise.
        runtimes: Names of runtimes to try; None for all that run artifacts and are installed.
        seconds: Time to spend on a batch size and precision, at least.
        max_error: The relative root-mean-square error that a precision other than float32 may have.
        seed: Of the inputs.
        progress: Called with a line for each batch size.

    Returns:
        What was found.

    Raises:
        ArgumentError, ArgumentTypeError: an argument cannot be used, or nothing runs the model in a precision.
        OutputError: the answer cannot be kept.

    Example:
        >>> import diffuse_fast as df
        >>> tuning = df.tune("digits", [1], seconds=0.1)                                   # doctest: +SKIP
        >>> tuning.best["float32"][1].runtime                                              # doctest: +SKIP
        'onnx'
    """
    model = model if isinstance(model, Model) else loaded(model)
    sizes = [whole("batch_sizes", size, 1) for size in batch_sizes]
    if not sizes or not precisions or isinstance(precisions, str):
        raise ArgumentError("batch_sizes and precisions are lists of at least one.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ArgumentTypeError(f"seconds is {seconds!r}; it must be a number above 0.")
    installed = [r for r in RUNTIMES if "artifact" in r.runs and r.installed]
    if runtimes is not None:
        if unknown := set(runtimes) - {r.name for r in installed}:
            raise ArgumentError(f"runtimes names {sorted(unknown)}; installed for artifacts: {[r.name for r in installed]}.")
        installed = [r for r in installed if r.name in runtimes]
    found: list[Candidate] = []
    best: dict[str, dict[int, Choice]] = {}
    for precision in precisions:
        names = [r.name for r in installed if precision in r.precisions]
        if not names:
            raise ArgumentError(
                f"precisions has {precision!r}; installed: {'; '.join(f'{r.name}: ' + ', '.join(r.precisions) for r in installed)}."
            )
        for size in sizes:
            limit = ROUNDING if precision == "float32" else max_error
            tried = _tried(model, size, precision, names, seconds, limit, seed)
            found += tried
            timed = [c for c in tried if c.refused is None]
            if not timed:
                raise ArgumentError(f"nothing runs the model in {precision} at batch {size}: {tried[0].refused}")
            best.setdefault(precision, {})[size] = min((c.choice for c in timed), key=lambda choice: choice.seconds)
            if progress is not None:
                won = best[precision][size]
                progress(f"batch {size}, {precision}: {won.runtime}, {won.threads} threads, {won.split} parts")
    return Tuning(tuple(found), best, cache.write(model, best))


def ways(cores: int, batch: int) -> list[tuple[int, int]]:
    """(threads, split) to try: threads in powers of two and all cores; the batch whole, or in as many parts as cores are left."""
    threads = sorted({*(1 << i for i in range(cores.bit_length()) if 1 << i <= cores), cores})
    return sorted({(t, parts) for t in threads for parts in (1, cores // t) if parts <= batch})


def _tried(
    model: Model, batch: int, precision: str, runtimes: list[str], seconds: float, limit: float, seed: int
) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    inputs = _Inputs(model, batch, rng)
    expected = inputs.outputs(network(model, _reference(), threads=1).bind(batch, model.shape, inputs.cond))
    calls: dict[Choice, Callable[[], object]] = {}
    errors: dict[Choice, float] = {}
    refused: list[Candidate] = []
    for name in runtimes:
        for threads, split in ways(cache.cores(), batch):
            choice = Choice(name, threads, split, precision)
            try:
                call = network(model, name, threads=threads, split=split, precision=precision).bind(batch, model.shape, inputs.cond)
                error = max(_apart(got, want) for got, want in zip(inputs.outputs(call), expected, strict=True))
            except DiffuseFastError as why:
                refused.append(Candidate(choice, batch, refused=str(why)))
                continue
            if not error <= limit:
                refused.append(Candidate(choice, batch, error, refused=f"its relative error is {error:.2g}; at most {limit:g}"))
                continue
            calls[choice], errors[choice] = _timed_call(call, inputs.times[0]), error
    turns = _interleaved(calls, seconds)
    out = []
    for choice, values in turns.items():
        p20, median, p80 = (float(v) for v in np.quantile(values, (0.2, 0.5, 0.8)))
        out.append(Candidate(dataclasses.replace(choice, seconds=median), batch, errors[choice], p20, p80, len(values)))
    return sorted(out, key=lambda c: c.choice.seconds) + refused


def _reference() -> str:
    return next(r.name for r in RUNTIMES if "artifact" in r.runs and r.installed)


def _timed_call(call: BoundCall, t: float) -> Callable[[], object]:
    return lambda: call(t)


class _Inputs:
    """Noise, three times and conditioning of a batch."""

    def __init__(self, model: Model, batch: int, rng: np.random.Generator):
        self.x = rng.standard_normal((batch, *model.shape)).astype(np.float32)
        known = model.time.convention == "timestep" and model.schedule is not None
        last = float(model.schedule.t_max) if known else 1.0  # type: ignore[union-attr]  # there, as asked
        self.times = [float(np.floor(last * part)) if model.time.dtype != "float32" else last * part for part in (0.5, 0.1, 0.9)]
        given = {}
        for c in model.conditioning:
            if c.dtype == "float32":
                given[c.name] = rng.standard_normal((batch, *c.shape)).astype(np.float32)
            else:
                given[c.name] = rng.integers(0, c.classes or 2, (batch, *c.shape)).astype(c.dtype)
        self.cond = conditions("cond", given, batch, model.conditioning)

    def outputs(self, call: BoundCall) -> list[np.ndarray]:
        call.x[...] = self.x
        return [call(t).copy() for t in self.times]


def _apart(got: np.ndarray, want: np.ndarray) -> float:
    scale = max(float(np.sqrt(np.mean(np.square(want, dtype=np.float64)))), float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.mean(np.square(got.astype(np.float64) - want)))) / scale


def _interleaved(calls: dict[Choice, Callable[[], object]], seconds: float) -> dict[Choice, list[float]]:
    """Seconds per call, one value per turn: all candidates once, then those that are not far behind."""
    times: dict[Choice, list[float]] = {choice: [] for choice in calls}
    counts = {}
    for choice, run in calls.items():
        run()
        begin = time.perf_counter()
        run()
        counts[choice] = max(1, int(_TURN / max(time.perf_counter() - begin, 1e-7)))
    left = list(calls)
    end = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        while left and (time.perf_counter() < end or len(times[left[0]]) < _LEAST):
            for choice in left:
                run = calls[choice]
                run()  # brings its own data and code back into the caches
                begin = time.perf_counter()
                for _ in range(counts[choice]):
                    run()
                times[choice].append((time.perf_counter() - begin) / counts[choice])
            if len(times[left[0]]) == _LEAST:
                medians = {choice: float(np.median(times[choice])) for choice in left}
                left = [choice for choice in left if medians[choice] <= _SLOW * min(medians.values())]
    finally:
        if collecting:
            gc.enable()
    return times
