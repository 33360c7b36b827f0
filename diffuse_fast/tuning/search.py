"""``tune``: find the runtime, threads and batch split that run a model fastest on this machine."""

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
from .ab_timing import MAX_TIME_FACTOR, Comparison, compare, min_rounds
from .cpu_load import OtherLoad
from .inputs import Inputs, relative_rms_error
from .result import Candidate, Tuning

# Largest relative error in float32. Runtimes differ by about 1e-6, because they sum in different orders.
ROUNDING = 1e-4
# Largest relative error of float32-fast that counts as float32: ten times the difference of two runtimes (docs/runtimes.md).
LIKE_ROUNDING = 1e-5


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

    Candidates are the installed runtimes, with one thread up to all cores inside a call, and with the batch whole or split over
    the cores. For float32, float32-fast is a candidate too if its error is below 1e-5, which is rounding.
    Each candidate is first compared with onnxruntime (or else the first runtime) in float32 on one thread, and is not timed if its
    error is larger. Then they take turns (:mod:`diffuse_fast.tuning.ab_timing`). The default, which ``auto`` takes without
    ``tune``, stays unless another candidate is significantly faster, by at least 2 %. For a candidate on fewer cores than the
    default, the load of other processes is added to the 2 %.

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
        OutputError: the result cannot be stored.

    Example:
        >>> import diffuse_fast as df
        >>> tuning = df.tune("digits", [1], seconds=0.1)                                   # doctest: +SKIP
        >>> tuning.best["float32"][1].runtime                                              # doctest: +SKIP
        'onnx'
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
            report(f"batch {size}, {precision}: {_described(won)}: {won.why}")
    return Tuning(tuple(found), best, cache.write(model, best))


def thread_splits(cores: int, batch: int, physical: int | None = None) -> list[tuple[int, int]]:
    """Return the pairs (threads, split) to try.

    Threads are powers of two, the number of physical cores, and the number of cores. The batch is whole, or split over all cores.
    """
    powers = (1 << i for i in range(cores.bit_length()))
    threads = {*(n for n in powers if n <= cores), cores, physical or cores}
    return sorted({(t, parts) for t in threads for parts in (1, cores // t) if parts <= batch})


def _candidates(
    model: Model, batch: int, precision: str, runtimes: list[str], seconds: float, limit: float, seed: int
) -> tuple[list[Candidate], Choice]:
    """Return all candidates, the fastest first, and the choice to take."""
    inputs = Inputs(model, batch, np.random.default_rng(seed))
    expected = inputs.outputs(network(model, _reference(), threads=1).bind(batch, model.shape, inputs.cond))
    default = _default(model, precision, runtimes)
    tried = thread_splits(machine.cores(), batch, machine.physical_cores())
    choices = [Choice(r, *way, precision) for r in runtimes for way in tried]
    if precision == "float32":
        able = [r.name for r in RUNTIMES if r.name in runtimes and "float32-fast" in r.precisions]
        choices += [Choice(r, *way, shortcuts=True) for r in able for way in tried]
    calls: list[Callable[[], object]] = []
    ready: list[Candidate] = []
    refused: list[Candidate] = []
    for choice in sorted(choices, key=lambda choice: choice != default):  # the default comes first: it is the baseline
        error = float("nan")
        try:
            net = network(model, choice.runtime, threads=choice.threads, split=choice.split, precision=choice.runtime_precision)
            call = net.bind(batch, model.shape, inputs.cond)
            error = max(relative_rms_error(got, want) for got, want in zip(inputs.outputs(call), expected, strict=True))
            most = LIKE_ROUNDING if choice.shortcuts else limit
            why = None if error <= most else f"its relative error is {error:.2g}; at most {most:g}"
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
    cores = [(c.choice.threads or 1) * c.choice.split for c in ready]
    on_fewer_cores = {i for i, count in enumerate(cores) if count < cores[0]}
    comparison = compare(calls, seconds, on_fewer_cores=on_fewer_cores, other_load=OtherLoad().share, seed=seed)
    timed = [_timed(candidate, comparison, i) for i, candidate in enumerate(ready)]
    won = timed[comparison.winner] = _explained(timed[comparison.winner], comparison)
    return sorted(timed, key=lambda c: c.choice.seconds) + refused, won.choice


def _default(model: Model, precision: str, runtimes: list[str]) -> Choice:
    """Return what ``auto`` takes of these runtimes without ``tune``, on all physical cores."""
    first = select(model, "auto", precision).name
    return Choice(first if first in runtimes else runtimes[0], machine.physical_cores(), 1, precision)


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


def _described(choice: Choice) -> str:
    return f"{choice.label}, {choice.threads} threads, {choice.split} parts"


def _reference() -> str:
    """onnxruntime where it is installed."""
    installed = [r.name for r in RUNTIMES if "artifact" in r.runs and r.installed]
    return "onnx" if "onnx" in installed else installed[0]
