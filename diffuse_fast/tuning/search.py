"""``tune``: find the runtime and threads that run a model fastest on this machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import machine
from ..checks import require_int, require_positive
from ..engine.sample import load_cached
from ..errors import ArgumentError, DiffuseFastError
from ..model import Model
from ..runtimes import network
from ..runtimes import tuning_cache as cache
from ..runtimes.registry import RUNTIMES, select
from ..runtimes.tuning_cache import Choice
from . import trial
from .ab_timing import MAX_TIME_FACTOR, Comparison, compare, min_rounds
from .cpu_load import OtherLoad
from .inputs import Inputs, relative_rms_error
from .result import Candidate, Tuning

# Largest relative error in float32. Runtimes differ by about 1e-6, because they sum in different orders.
ROUNDING = 1e-4


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
    """Time the ways to run a model's network on this machine and store the fastest, which ``runtime="auto"`` then uses.

    Candidates are the installed runtimes that have the precision, on one thread up to all cores. Those of other packages are tried
    in a process of their own first, which they may end. Each candidate is compared with what ``auto`` takes in float32, on one
    thread, and is not timed if its error is larger. Then they take turns (:mod:`diffuse_fast.tuning.ab_timing`). The default, which
    ``auto`` takes without ``tune``, stays unless another candidate is significantly faster, by at least 2 %. For a candidate on
    fewer cores than the default, the load of other processes is added to the 2 %.

    The result applies to this artifact, CPU, number of cores and package versions. A *network call* takes the result of the tuned
    batch size that is nearest in ratio; guidance doubles the batch. Each precision has its own results.

    Args:
        model: An artifact: its path, a bundled name or a ``df.Model``.
        batch_sizes: Samples in a network call.
        precisions: The precisions to tune; ``float32`` is the default of ``df.sample``.
        runtimes: Names of the runtimes to try; None for all that run artifacts and are installed.
        seconds: Time to spend on a batch size and precision once all candidates are built. If that is too short for a significant
            result, up to 15 times as much.
        max_error: Largest relative root-mean-square error of a precision other than float32.
        seed: Seed of the inputs, and of the order in which the candidates take turns.
        progress: Called with a line before and after each batch size and precision.

    Returns:
        The candidates with their measurements, and the best.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is invalid, or no runtime runs the model in a precision.
        UnavailableError, MissingDependencyError: no installed runtime runs the model in float32.
        OutputError: the result cannot be stored.

    Example:
        >>> import diffuse_fast as df
        >>> tuning = df.tune("digits", [1], seconds=0.1)                                   # doctest: +SKIP
        >>> tuning.best["float32"][1].runtime                                              # doctest: +SKIP
        'native'
    """
    model = model if isinstance(model, Model) else load_cached(model)
    sizes = [require_int("batch_sizes", size, 1) for size in batch_sizes]
    if not sizes or not precisions or isinstance(precisions, str):
        raise ArgumentError("batch_sizes and precisions must be lists with at least one entry.")
    seconds, max_error = require_positive("seconds", seconds), require_positive("max_error", max_error)
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
            report = progress or (lambda line: None)
            report(f"batch {size}, {precision}: {seconds:g} s, up to {MAX_TIME_FACTOR * seconds:g} s if calls are slow")
            tried, won = _candidates(model, size, precision, names, seconds, limit, seed)
            found += tried
            best.setdefault(precision, {})[size] = won
            report(f"batch {size}, {precision}: {won.runtime}, {won.threads} threads: {won.why}")
    return Tuning(tuple(found), best, cache.write(model, best))


def thread_counts(cores: int, physical: int) -> list[int]:
    """Return the numbers of threads to try: powers of two, the number of physical cores, and the number of cores."""
    return sorted({1 << i for i in range(cores.bit_length())} | {cores, physical})


def _candidates(
    model: Model, batch: int, precision: str, runtimes: list[str], seconds: float, limit: float, seed: int
) -> tuple[list[Candidate], Choice]:
    """Return all candidates, the fastest first, and the choice to take."""
    inputs = Inputs(model, batch, np.random.default_rng(seed))
    reference = select(model).name
    expected = inputs.outputs(network(model, reference, threads=1).bind(batch, model.shape, inputs.cond))
    default = _default(model, precision, runtimes)
    choices = [Choice(r, n, precision) for r in runtimes for n in thread_counts(machine.cores(), machine.physical_cores())]
    ended = {r: trial.ended(model, batch, [c for c in choices if c.runtime == r]) for r in runtimes if r != "native"}
    calls: list[Callable[[], object]] = []
    ready: list[Candidate] = []
    refused: list[Candidate] = []
    for choice in sorted(choices, key=lambda choice: choice != default):  # the default comes first: it is the baseline
        error, why = float("nan"), ended.get(choice.runtime)
        if why is None:
            try:
                net = network(model, choice.runtime, threads=choice.threads, precision=choice.precision)
                call = net.bind(batch, model.shape, inputs.cond)
                error = max(relative_rms_error(got, want) for got, want in zip(inputs.outputs(call), expected, strict=True))
                why = None if error <= limit else f"its relative error is {error:.2g}; at most {limit:g}"
            except DiffuseFastError as failed:
                why = str(failed)
            except Exception as failed:  # a runtime may raise anything; the other candidates go on
                why = f"{type(failed).__name__}: {str(failed)[:1000]}"
        if why is None:
            calls.append(functools.partial(call, inputs.times[0]))
            ready.append(Candidate(choice, batch, error, default=not ready))
        else:
            refused.append(Candidate(choice, batch, error, refused=why))
    if not ready:
        raise ArgumentError(f"no runtime runs the model in {precision} at batch {batch}: {refused[0].refused}")
    threads = [c.choice.threads or 1 for c in ready]
    on_fewer_cores = {i for i, count in enumerate(threads) if count < threads[0]}
    comparison = compare(calls, seconds, on_fewer_cores=on_fewer_cores, other_load=OtherLoad().share, seed=seed)
    timed = [_timed(candidate, comparison, i) for i, candidate in enumerate(ready)]
    won = timed[comparison.winner] = _explained(timed[comparison.winner], comparison)
    return sorted(timed, key=lambda c: c.choice.seconds) + refused, won.choice


def _default(model: Model, precision: str, runtimes: list[str]) -> Choice:
    """Return what ``auto`` takes of these runtimes without ``tune``, on all physical cores."""
    first = select(model, "auto", precision).name
    return Choice(first if first in runtimes else runtimes[0], machine.physical_cores(), precision)


def _timed(candidate: Candidate, comparison: Comparison, i: int) -> Candidate:
    p20, median, p80 = (float(v) for v in np.quantile(comparison.times[i], (0.2, 0.5, 0.8)))
    return dataclasses.replace(
        candidate,
        choice=dataclasses.replace(candidate.choice, seconds=median),
        p20=p20,
        p80=p80,
        turns=len(comparison.times[i]),
        gain=comparison.gain(i),
        won=comparison.won(i),
    )


def _explained(winner: Candidate, comparison: Comparison) -> Candidate:
    """Return the winner with the reason in its choice."""
    rounds = winner.turns
    if comparison.winner:
        why = f"{winner.gain:.2f} times as fast as the default, and faster in {winner.won} of {rounds} rounds"
    elif rounds < min_rounds(len(comparison.times) - 1):
        why = f"the default, because {rounds} rounds are too few for a significant result; give it more seconds"
    else:
        why = f"the default, because no other was significantly faster in {rounds} rounds"
    if comparison.other_load:
        why += f"; other processes took {comparison.other_load:.0%} of the cores meanwhile, so tune again when the machine is idle"
    return dataclasses.replace(winner, choice=dataclasses.replace(winner.choice, why=why))
