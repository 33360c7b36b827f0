"""Peers drawing the same samples: each in a process of its own, in turns, with equal threads, held to one reference first."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .cores import thread_counts
from .limits import limits
from .measure import Timing
from .networks import FOLDER, NETWORKS
from .peers import PEERS, Entry, Job
from .process import Process, left_out
from .report import Line
from .worker import order_set_up

TURN = 0.06
FEWEST_ROUNDS = 9  # a machine that is not quiet spoils one or two
MOST_ROUNDS = 60
STEP_BYTES = 12  # per element: a step reads the state and the network's output, and writes the state
PROBE_TIME = 499  # at which one call of the network is held to the reference


_workers: dict[str, tuple[int, Process]] = {}  # by the peer's name, with the number of threads that it was started for


def _worker(entry: Entry, threads: int) -> Process:
    """The peer's process: another one for another number of threads, since OpenVINO looks only once which cores it may use."""
    started, process = _workers.get(entry.name, (0, None))
    if process is not None and process.alive and started == threads:
        return process
    if process is not None:
        process.close()
    process = Process(entry.name, ["bench.worker", entry.name])
    _workers[entry.name] = threads, process
    return process


def compare(job: Job, seconds: float, *, only: tuple[str, ...] | None = None) -> list[Line]:
    """Times of all peers, or of those named, for one job; the last lines are those who could not, each with its reason."""
    lines, missing, ready = [], [], {}
    entries = [e for e in PEERS if (only is None or e.name in only) and e.plays(job.network)]
    reference = _reference_of(job.network, job.batch, job.steps)
    together, alone = [e for e in entries if not e.measures], [e for e in entries if e.measures]
    with ThreadPoolExecutor(2) as pool:  # setting up is compiling, mostly
        answers = list(pool.map(lambda e: _set_up(e, job, reference), together))
    answers += [_set_up(e, job, reference) for e in alone]
    for entry, answer in zip(together + alone, answers, strict=True):
        if "unavailable" in answer:
            missing.append(Line(entry.name, job=labels(job, entry), note=left_out(answer)))
        else:
            ready[entry.name] = (entry, answer)
    rounds = _rounds({name: answer["once"] for name, (_, answer) in ready.items()}, seconds)
    first = next((rounds[e.name] for e, _ in ready.values() if e.ours), None)
    for name, (entry, answer) in ready.items():
        values = np.array(rounds[name])
        lines.append(
            Line(
                name,
                seconds=Timing.of(values),
                ratio=None if first is None else Timing.of(values / np.array(first)),
                peer="diffuse_fast",
                job=labels(job, entry),
                error=answer["error"],
                error_of_call=answer["error_of_call"],
                share=floor_of(job, entry.precision) / float(np.median(values)),
                rounds=[float(f"{v:.4g}") for v in values],
            )
        )
    return lines + missing


def _set_up(entry: Entry, job: Job, reference: Path) -> dict:
    return _worker(entry, job.threads).ask(order_set_up(job, reference))


def compare_all(jobs: Iterable[tuple[str, int, int]], seconds: float, *, only: tuple[str, ...] | None = None) -> list[Line]:
    """All peers on all jobs (network, batch, steps), with one thread and with two, the time shared out evenly."""
    every = [Job(*job, threads) for threads in thread_counts() for job in jobs]
    lines = []
    for job in every:
        lines += compare(job, seconds / len(every), only=only)
    return lines


def title(job: Job) -> str:
    threads = f"{job.threads} thread{'s' if job.threads > 1 else ''}"
    return f"{job.network} ({NETWORKS[job.network].about}), batch {job.batch}, {job.steps} DDIM steps, {threads}"


def labels(job: Job, entry: Entry) -> dict[str, object]:
    return {
        "network": job.network, "batch": job.batch, "steps": job.steps, "threads": job.threads, "precision": entry.precision,
        "ours": entry.ours,
    }  # fmt: skip


def floor_of(job: Job, precision: str) -> float:
    """Seconds below which no implementation that does these multiply-adds can draw the job's samples on this machine."""
    work, elements = _counted(job.network)
    n = job.steps * job.batch
    return limits(job.threads).floor(n * work, n * elements * STEP_BYTES, precision)


@functools.cache
def _counted(network: str) -> tuple[int, int]:
    from .modules import multiply_adds

    return multiply_adds(network), int(np.prod(NETWORKS[network].shape))


def _rounds(once: dict[str, float], seconds: float) -> dict[str, list[float]]:
    """Seconds per call in turns: every round has one turn of each, and begins with another."""
    calls = {name: max(1, int(TURN / max(value, 1e-6))) for name, value in once.items()}
    times: dict[str, list[float]] = {name: [] for name in once}
    if not once:
        return times
    names = list(once)
    end, done = time.perf_counter() + seconds, 0
    while done < FEWEST_ROUNDS or (time.perf_counter() < end and done < MOST_ROUNDS):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_workers[name][1].ask({"do": "run", "calls": calls[name]})["seconds"])
        done += 1
    return times


@functools.cache
def _reference_of(network: str, batch: int, steps: int) -> Path:
    """The job's noise, and what float64 makes of it: the samples, both ways of taking ε, and one call of the network."""
    import torch

    from .modules import module, prepare
    from .peers.torch_loop import TorchLoop

    job = Job(network, batch, steps, threads=1)
    prepare(job.network)
    path = FOLDER / f"{job.network}-{job.batch}-{job.steps}.npz"
    rng = np.random.default_rng(0)
    noise, x = (rng.standard_normal((job.batch, *NETWORKS[job.network].shape)).astype(np.float32) for _ in range(2))
    network = module(job.network).double()
    loop, rederiving = (TorchLoop(job, network, dtype=torch.float64, rederive=r) for r in (False, True))
    output = loop.network(x, PROBE_TIME)
    np.savez(
        path, noise=noise, x=x, t=PROBE_TIME, output=output, sample=loop.sample(noise), rederived=rederiving.sample(noise)
    )
    return path

