"""Does a pool of processes draw more samples than threads do? A batch on two cores: on two threads, and in halves in two processes
that hand their samples over.

No target: where the second is not faster, the first needs no copy of the weights.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import numpy as np

import diffuse_fast as df
from diffuse_fast.kernels import num_threads, set_num_threads

from ..cores import cores
from ..measure import Timing, interleaved, ratio
from ..modules import prepare
from ..networks import CLIP, NETWORKS, artifact
from ..report import Line

JOBS = (("mlp", 4096, 50), ("digits", 64, 4), ("unet28", 16, 2))
THREADS, PROCESSES = "two threads in a call", "halves in processes"


def run(seconds: float) -> list[Line]:
    if len(cores(2)) < 2:
        return [Line(PROCESSES, note="left out: there is one core")]
    before, threads = os.sched_getaffinity(0), num_threads()
    os.sched_setaffinity(0, cores(2))
    try:
        return [line for job in JOBS for line in _compare(*job, seconds / len(JOBS))]
    finally:
        os.sched_setaffinity(0, before)
        set_num_threads(threads)


def _compare(network: str, batch: int, steps: int, seconds: float) -> list[Line]:
    prepare(network)
    half = batch // 2
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for core in cores(2):
        here, there = context.Pipe()
        children.append(context.Process(target=_child, args=(there, core, network, half, steps), daemon=True))
        children[-1].start()
        pipes.append(here)

    def in_processes() -> np.ndarray:
        for i, pipe in enumerate(pipes):
            pipe.send(i * half)
        return np.concatenate([pipe.recv() for pipe in pipes])

    set_num_threads(2)
    runs = {THREADS: _sampler(network, batch, steps, threads=2), PROCESSES: in_processes}
    try:
        expected = runs[THREADS]()
        if (error := float(np.abs(in_processes() - expected).max())) > 1e-3:
            raise ValueError(f"{network}: the processes' samples are off by {error:.2g}")
        times = interleaved(runs, seconds=seconds)
    finally:
        for pipe, child in zip(pipes, children, strict=True):
            pipe.close()
            child.join()
    return [
        Line(
            f"{network}, {batch} samples, {steps} steps: {name}",
            seconds=Timing.of(values),
            peer=THREADS,
            ratio=None if name == THREADS else ratio(times, name, THREADS),
        )
        for name, values in times.items()
    ]


def _sampler(network: str, batch: int, steps: int, threads: int) -> Callable[..., np.ndarray]:
    """Draws a batch."""
    net, model = NETWORKS[network], df.load(artifact(network))
    spacing = "trailing" if 1000 % steps == 0 else "leading"
    plan = df.plan(net.schedule, "ddim", steps, prediction_type=net.prediction_type, clip=CLIP, timestep_spacing=spacing)
    sampler = df.Sampler(model, plan, threads=threads)
    cond = net.conditioning(batch)
    return lambda first=0: sampler.sample(batch, seed=0, first_index=first, cond=cond)


def _child(pipe, core: int, network: str, batch: int, steps: int) -> None:
    os.sched_setaffinity(0, {core})
    set_num_threads(1)
    sample = _sampler(network, batch, steps, threads=1)
    while True:
        try:
            first = pipe.recv()
        except EOFError:
            return
        pipe.send(sample(first))
