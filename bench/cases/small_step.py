"""One step on 3,072 elements called from Python: what a call costs beside the kernel.

The target: at most 2.5 times ``np.add(x, e, out=o)``, plus a microsecond.
"""

from __future__ import annotations

import numpy as np

import diffuse_fast as df

from ..measure import Timing, interleaved
from ..report import Line

SHAPE = (1, 3, 32, 32)


def run(seconds: float) -> list[Line]:
    rng = np.random.default_rng(0)
    x, e, o = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(3))
    ddim = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon").rows[0]
    ddpm = df.plan(df.Schedule.linear(), "ddpm", 10, prediction_type="epsilon").rows[0]
    times = interleaved(
        {
            "np.add(x, e, out=o)": lambda: np.add(x, e, out=o),
            "df.step, no noise": lambda: df.step(x, e, ddim, out=o),
            "df.step, noise": lambda: df.step(x, e, ddpm, seed=1, out=o),
        },
        seconds=seconds,
        turn=0.005,
    )
    peer = times["np.add(x, e, out=o)"]
    lines = [Line(name, seconds=Timing.of(values)) for name, values in times.items()]
    over = Timing.of(times["df.step, no noise"] / (2.5 * peer + 1e-6))
    return [*lines, Line("df.step, no noise", peer="2.5x np.add + 1 µs", ratio=over, limit=1.0)]
