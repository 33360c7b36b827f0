"""One row of every solver, one thread, float32, (64, 3, 128, 128): its time over a DDIM row's, beside what its bytes explain.

A row reads the state and the model output and writes the state, 12 bytes per element; every register it reads or writes is 4
more, and a reduction reads the model output once more. Of each solver's plan the row that moves the most is timed. Drawing noise
is arithmetic and not bytes: rows that do are held against a row of Euler-Maruyama's form (x' = a·x + b·m + s·z). The Langevin
corrector draws its noise twice, once for its norm. The target: at most twice what the bytes explain.
"""

from __future__ import annotations

import numpy as np

import diffuse_fast as df
from diffuse_fast.kernels import get_kernel, num_threads, set_num_threads
from diffuse_fast.plans.plan import MAX_REGISTERS, Row

from ..measure import Timing, interleaved
from ..report import Line

SHAPE = (64, 3, 128, 128)
BASE = 12
LIMIT = 2.0
PEERS = {"a DDIM row": Row(timestep=1.0, a=0.9, b=0.1), "a row with noise": Row(timestep=1.0, a=0.9, b=0.1, s=0.1)}


def run(seconds: float) -> list[Line]:
    threads = num_threads()
    set_num_threads(1)
    try:
        return _run(seconds)
    finally:
        set_num_threads(threads)


def moved(row: Row) -> int:
    """Bytes per element that a row reads and writes."""
    read = {k for weights in (row.c, row.f) for k, w in enumerate(weights) if w != 0.0}
    return BASE + 4 * len(read) + (4 if row.write is not None else 0) + (4 if row.reduce is not None else 0)


def _run(seconds: float) -> list[Line]:
    rng = np.random.default_rng(0)
    x, m, out = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(3))
    bank = np.zeros((MAX_REGISTERS, *SHAPE), np.float32)
    seeds, indices = np.zeros(SHAPE[0], np.uint64), np.arange(SHAPE[0], dtype=np.uint32)
    rows = {**PEERS, **{name: _heaviest(name) for name in df.solvers()}}
    bound = {
        name: get_kernel().bind([row], x=x, out=out, outputs=[m], registers=bank, seeds=seeds, indices=indices)
        for name, row in rows.items()
    }
    times = interleaved({name: (lambda b=b: b.run(0, 0)) for name, b in bound.items()}, seconds=seconds)
    lines = []
    for name, row in rows.items():
        if name in PEERS:
            lines.append(Line(name, seconds=Timing.of(times[name])))
            continue
        peer = "a row with noise" if row.stochastic else "a DDIM row"
        explained = moved(row) / BASE
        over = times[name] / times[peer]
        against = f"what {moved(row)} bytes explain of {peer}"
        note = f"{np.median(over):.2f}x {peer}"
        share = Timing.of(over / explained)
        lines.append(Line(name, seconds=Timing.of(times[name]), peer=against, ratio=share, limit=LIMIT, note=note))
    return lines


def _heaviest(solver: str) -> Row:
    problems = ((df.Schedule.linear(), "epsilon"), (df.Schedule.edm(), "denoised"), (df.Schedule.flow(), "flow"))
    for schedule, prediction_type in problems:
        try:
            plan = df.plan(schedule, solver, 10, prediction_type=prediction_type)
        except df.DiffuseFastError:
            continue
        return max((row for row in plan.rows if row.calls_network), key=lambda row: (row.stochastic, moved(row)))
    raise AssertionError(f"no schedule here fits {solver}")
