"""``tune``: which runtime, threads and parts run a model fastest on this machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import machine
from ..engine.arguments import require_int
from ..engine.sample import load_cached
from ..errors import ArgumentError, ArgumentTypeError, DiffuseFastError
from ..model import Model
from ..runtimes import network
from ..runtimes import tuning_cache as cache
from ..runtimes.registry import RUNTIMES, select
from ..runtimes.tuning_cache import Choice
from .ab_timing import LONGEST, Contest, contest, fewest
from .cpu_load import Others
from .inputs import Inputs, apart
from .result import Candidate, Tuning

# Two runtimes sum in other orders: some 1e-6 of the scale apart. Another function differs by the scale itself.
ROUNDING = 1e-4
# What a shortcut may be off by to count as float32: ten times what two runtimes are apart on the networks of docs/runtimes.md.
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
    """Time the ways to run a model's network on this machine, and remember the fastest: ``runtime="auto"`` then takes it.

    Candidates are the installed runtimes, with one thread to all cores inside a call, and a batch whole or split over the cores.
    For float32 the shortcuts of float32-fast are candidates too, where their error is that of rounding: below 1e-5.
    Each is compared with onnxruntime (else the first runtime) in float32 on one thread before it is timed; what differs is not
    timed. Then they take turns (:mod:`diffuse_fast.tuning.ab_timing`). What ``auto`` takes without ``tune``, the default, stays
    unless another is faster by 2 % and by more than chance explains: noise does not make it worse. What other processes took
    of the cores is added to the 2 % for a candidate on fewer cores than the default, which they may have spared.

    The answer holds for this artifact, processor, number of cores and these versions, and for the batch sizes of *network calls*
    nearest in ratio to a tuned one: guidance doubles the batch. The answer of one precision is never taken for another.

    Args:
        model: An artifact: its path, a bundled name or a ``df.Model``.
        batch_sizes: Samples in a network call.
        precisions: What may be computed in; ``float32`` is what ``df.sample`` asks for unless told otherwise.
        runtimes: Names of runtimes to try; None for all that run artifacts and are installed.
        seconds: Time to spend on a batch size and precision once all candidates are made. Where that is too few rounds to be sure
            of a win, more: up to 15 times as much.
        max_error: The relative root-mean-square error that a precision other than float32 may have.
        seed: Of the inputs, and of the orders that the candidates take turns in.
        progress: Called with a line before and after each batch size and precision.

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
    model = model if isinstance(model, Model) else load_cached(model)
    sizes = [require_int("batch_sizes", size, 1) for size in batch_sizes]
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
            told = progress or (lambda line: None)
            told(f"batch {size}, {precision}: {seconds:g} s, where calls are slow up to {LONGEST * seconds:g} s")
            tried, won = _tried(model, size, precision, names, seconds, limit, seed)
            found += tried
            best.setdefault(precision, {})[size] = won
            told(f"batch {size}, {precision}: {_spoken(won)}: {won.why}")
    return Tuning(tuple(found), best, cache.write(model, best))


def ways(cores: int, batch: int, physical: int | None = None) -> list[tuple[int, int]]:
    """(threads, split) to try: threads in powers of two, as many as there are physical cores, and as there are cores; the batch
    whole, or in as many parts as cores are left."""
    powers = (1 << i for i in range(cores.bit_length()))
    threads = {*(n for n in powers if n <= cores), cores, physical or cores}
    return sorted({(t, parts) for t in threads for parts in (1, cores // t) if parts <= batch})


def _tried(
    model: Model, batch: int, precision: str, runtimes: list[str], seconds: float, limit: float, seed: int
) -> tuple[list[Candidate], Choice]:
    """All candidates, the fastest first, and what is to be taken."""
    inputs = Inputs(model, batch, np.random.default_rng(seed))
    expected = inputs.outputs(network(model, _reference(), threads=1).bind(batch, model.shape, inputs.cond))
    default = _default(model, precision, runtimes)
    tried = ways(machine.cores(), batch, machine.physical_cores())
    choices = [Choice(r, *way, precision) for r in runtimes for way in tried]
    if precision == "float32":
        able = [r.name for r in RUNTIMES if r.name in runtimes and "float32-fast" in r.precisions]
        choices += [Choice(r, *way, shortcuts=True) for r in able for way in tried]
    calls: list[Callable[[], object]] = []
    ready: list[Candidate] = []
    refused: list[Candidate] = []
    for choice in sorted(choices, key=lambda choice: choice != default):  # the default is the first, which a contest keeps
        error = float("nan")
        try:
            net = network(model, choice.runtime, threads=choice.threads, split=choice.split, precision=choice.runtime_precision)
            call = net.bind(batch, model.shape, inputs.cond)
            error = max(apart(got, want) for got, want in zip(inputs.outputs(call), expected, strict=True))
            most = LIKE_ROUNDING if choice.shortcuts else limit
            why = None if error <= most else f"its relative error is {error:.2g}; at most {most:g}"
        except DiffuseFastError as failed:
            why = str(failed)
        except Exception as failed:  # whatever a runtime raises: the others run the model all the same
            why = f"{type(failed).__name__}: {str(failed)[:1000]}"
        if why is None:
            calls.append(functools.partial(call, inputs.times[0]))
            ready.append(Candidate(choice, batch, error, default=not ready))
        else:
            refused.append(Candidate(choice, batch, error, refused=why))
    if not ready:
        raise ArgumentError(f"nothing runs the model in {precision} at batch {batch}: {refused[0].refused}")
    taken = [(c.choice.threads or 1) * c.choice.split for c in ready]
    spared = {i for i, cores in enumerate(taken) if cores < taken[0]}
    held = contest(calls, seconds, spared=spared, others=Others().share, seed=seed)
    timed = [_timed(candidate, held, i) for i, candidate in enumerate(ready)]
    won = timed[held.winner] = _explained(timed[held.winner], held)
    return sorted(timed, key=lambda c: c.choice.seconds) + refused, won.choice


def _default(model: Model, precision: str, runtimes: list[str]) -> Choice:
    """What ``auto`` takes where nothing was tuned, of these runtimes: each physical core."""
    first = select(model, "auto", precision).name
    return Choice(first if first in runtimes else runtimes[0], machine.physical_cores(), 1, precision)


def _timed(candidate: Candidate, held: Contest, i: int) -> Candidate:
    p20, median, p80 = (float(v) for v in np.quantile(held.times[i], (0.2, 0.5, 0.8)))
    return dataclasses.replace(
        candidate,
        choice=dataclasses.replace(candidate.choice, seconds=median),
        p20=p20,
        p80=p80,
        turns=len(held.times[i]),
        gain=held.gain(i),
        won=held.won(i),
    )


def _explained(winner: Candidate, held: Contest) -> Candidate:
    """The winner, with the reason in its choice."""
    rounds = winner.turns
    if held.winner:
        why = f"{winner.gain:.2f} times as fast as the default, and faster in {winner.won} of {rounds} rounds"
    elif rounds < fewest(len(held.times) - 1):
        why = f"the default, as {rounds} rounds are too few to be sure of another; give it more seconds"
    else:
        why = f"the default, as none was surely faster in {rounds} rounds"
    if held.others:
        why += f"; others took {held.others:.0%} of the cores meanwhile, so tune again when they rest"
    return dataclasses.replace(winner, choice=dataclasses.replace(winner.choice, why=why))


def _spoken(choice: Choice) -> str:
    return f"{choice.label}, {choice.threads} threads, {choice.split} parts"


def _reference() -> str:
    return next(r.name for r in RUNTIMES if "artifact" in r.runs and r.installed)
