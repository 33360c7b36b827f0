"""Serving the bundled digits: what a request costs that is alone, and how many are done where 64 always wait.

Every request draws one sample. The mix has steps from {5, 10, 20, 50} and eight guidance scales, of which one is 1. Server and
client share this machine's cores: the worker is one process with one thread, the client another.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator

import numpy as np

import diffuse_fast as df
from diffuse_fast.serving.job import Job, Sample
from diffuse_fast.serving.workers import Workers

from ..report import Line

STEPS = (5, 10, 20, 50)
GUIDANCE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5)
WAITING = 64
LIMIT_MS = 3.0  # of a request that is alone, above df.sample
TARGET = 1.2  # times the rate of one request at a time


def run(seconds: float) -> list[Line]:
    return asyncio.run(_run(seconds))


async def _run(seconds: float) -> list[Line]:
    workers = Workers({"digits": "digits"}, capacity=16, queue=WAITING, threads=1)
    await workers.start()
    try:
        above = await _alone(workers, seconds / 3)
        one, many = 0.0, 0.0
        ratios = []
        for _ in range(3):  # in turns
            one = await _rate(workers, 1, seconds / 9)
            many = await _rate(workers, WAITING, seconds / 9)
            ratios.append(many / one)
    finally:
        await workers.stop(drain=0.0)
    return [
        Line("a request that is alone, above df.sample", value=1e3 * above, unit="ms", limit=LIMIT_MS),
        Line("one request at a time", value=one, unit="requests/s"),
        Line(f"{WAITING} requests waiting", value=many, unit="requests/s"),
        Line(f"{WAITING} waiting over one at a time (at least {TARGET})", value=float(np.median(ratios)), unit="x"),
    ]


async def _alone(workers: Workers, seconds: float) -> float:
    """The median of the differences between a request and a call of df.sample, in turns."""
    differences = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(differences) < 5:
        begin = time.perf_counter()
        await _draw(workers, Job(f"alone {len(differences)}", "digits", (Sample(1, 0, {"label": 3}),), "ddim", 20))
        middle = time.perf_counter()
        df.sample("digits", 1, 20, seed=1, cond={"label": 3}, threads=1)
        differences.append(2 * middle - begin - time.perf_counter())
    return float(np.median(differences[1:]))


async def _rate(workers: Workers, waiting: int, seconds: float) -> float:
    """Requests per second, where a new one comes for each that is done."""
    jobs = _mix()
    done, end = 0, time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await _draw(workers, next(jobs))
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(waiting)))
    return done / (time.perf_counter() - begin)


def _mix() -> Iterator[Job]:
    chance = random.Random(0)
    for number in itertools.count():
        sample = Sample(number, 0, {"label": number % 10})
        yield Job(f"{number}", "digits", (sample,), "ddim", chance.choice(STEPS), guidance_scale=chance.choice(GUIDANCE))


async def _draw(workers: Workers, job: Job) -> None:
    async for _ in workers.submit(job):
        pass
