"""Training the digits UNet, batch 64, float32, in images per second: ``df.train`` beside a diffusers script and
denoising-diffusion-pytorch's trainer.

Each in a process of its own, in turns, with equal cores; :mod:`bench.trainers` says what all of them do. The target: at least as
many images per second.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..cores import thread_counts
from ..digits_recipe import CONFIG
from ..measure import Timing, take_turns
from ..process import Process, left_out
from ..report import Line
from ..trainers import TRAINERS

STEPS = 6  # of a turn
FEWEST_ROUNDS = 5
OURS = "diffuse_fast"
LIMIT = 1.0


def run(seconds: float) -> list[Line]:
    counts = thread_counts()
    return [line for threads in counts for line in _run(seconds / len(counts), threads)]


def _run(seconds: float, threads: int) -> list[Line]:
    started = {name: Process(f"training {name}", ["bench.trainer", name, str(threads), str(STEPS)]) for name in TRAINERS}
    lines: list[Line] = []
    turns: dict[str, Callable[[], float | None]] = {}
    try:
        for name, process in started.items():  # one after the other, so that setting up takes no cores from timing
            answer = process.ask({})
            if "unavailable" in answer:
                lines.append(Line(f"{name}, {threads} threads", note=left_out(answer)))
            else:
                turns[name] = lambda process=process: process.ask({})["seconds"] / STEPS
        times = take_turns(turns, seconds=seconds, fewest=FEWEST_ROUNDS)
    finally:
        for process in started.values():
            process.close()
    ours = np.array(times[OURS])
    images = CONFIG.batch_size
    found = [Line(f"{OURS}, {threads} threads", seconds=Timing.of(ours), value=images / float(np.median(ours)), unit="images/s")]
    for name in times:
        if name != OURS:
            values = np.array(times[name])
            rate = images / float(np.median(values))
            found += [
                Line(f"{name}, {threads} threads", seconds=Timing.of(values), value=rate, unit="images/s"),
                Line(f"{OURS} over {name}, {threads} threads", ratio=Timing.of(ours / values), peer=name, limit=LIMIT),
            ]
    return found + lines
