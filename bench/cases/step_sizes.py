"""One step over 3e3 to 1e7 elements, with noise and without, one thread and two: against ``scheduler.step`` of diffusers.

The peer is DDIMScheduler (eta 0, and 1 for the noise) with x0 clipped and its defaults; ours is ``df.step`` of the same
arithmetic (``rederive_epsilon=False``), which finds its noise by seed and index as it does when sampling. The share is of the
machine's copy bandwidth: a step moves 12 bytes per element; what fits in a cache can be over 100 %.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from diffusers import DDIMScheduler

import diffuse_fast as df
from diffuse_fast.kernels import num_threads, set_num_threads

from ..cores import cores, thread_counts
from ..limits import limits
from ..measure import Timing, interleaved
from ..report import Line
from ..sampling import STEP_BYTES

ELEMENTS = (3_072, 49_152, 786_432, 12_582_912)
STEPS, AT = 10, 4


def run(seconds: float) -> list[Line]:
    before = torch.get_num_threads(), num_threads(), os.sched_getaffinity(0)
    jobs = [(threads, n, eta) for threads in thread_counts() for n in ELEMENTS for eta in (0.0, 1.0)]
    lines = []
    try:
        for threads, n, eta in jobs:
            os.sched_setaffinity(0, cores(threads))
            torch.set_num_threads(threads)
            set_num_threads(threads)
            lines += _compare(threads, n, eta, seconds / len(jobs))
    finally:
        torch.set_num_threads(before[0])
        set_num_threads(before[1])
        os.sched_setaffinity(0, before[2])
    return lines


def _compare(threads: int, n: int, eta: float, seconds: float) -> list[Line]:
    rng = np.random.default_rng(0)
    shape = (n // 3_072, 3, 32, 32)
    x, m = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    out = np.empty_like(x)
    schedule = df.Schedule.linear()
    plan = df.plan(schedule, "ddim", STEPS, prediction_type="epsilon", clip=(-1, 1), eta=eta, rederive_epsilon=False)
    scheduler = DDIMScheduler(trained_betas=np.asarray(schedule.betas), steps_offset=0)
    scheduler.set_timesteps(STEPS)
    t, tx, tm = scheduler.timesteps[AT], torch.from_numpy(x), torch.from_numpy(m)
    row, ours = plan.rows[AT], partial(df.step, x, m, plan.rows[AT], seed=1, step=AT, out=out)
    error = _error(plan.rows[AT], scheduler, eta, x, m)

    def peer() -> object:
        return scheduler.step(tm, t, tx, eta=eta).prev_sample

    times = interleaved({"diffuse_fast": ours, "diffusers": peer}, seconds=seconds, turn=0.01)
    fast, slow = times["diffuse_fast"], times["diffusers"]
    what = f"{n:,} elements, {'noise' if row.stochastic else 'no noise'}, {threads} thread{'s' if threads > 1 else ''}"
    job = {"elements": n, "noise": row.stochastic, "threads": threads}
    middle = float(np.median(fast))
    return [
        Line(
            f"{what}: df.step", seconds=Timing.of(fast), job={**job, "ours": True}, error=error,
            share=n * STEP_BYTES / limits(threads).bandwidth / middle,
        ),
        Line(
            f"{what}: scheduler.step", seconds=Timing.of(slow), job={**job, "ours": False},
            ratio=Timing.of(slow / fast), peer="df.step",
        ),
    ]  # fmt: skip


def _error(row, scheduler: DDIMScheduler, eta: float, x: np.ndarray, m: np.ndarray) -> float:
    """Against the peer given the same noise: what ours adds to a step without it is s·z."""
    ours = df.step(x, m, row, seed=1, step=AT)
    noise = None
    if eta:
        quiet = df.step(x, m, _silent(row), seed=1, step=AT)
        noise = torch.from_numpy((ours - quiet) / np.float32(row.s))
    t = scheduler.timesteps[AT]
    theirs = scheduler.step(torch.from_numpy(m), t, torch.from_numpy(x), eta=eta, variance_noise=noise).prev_sample.numpy()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _silent(row):
    return replace(row, s=0.0)
