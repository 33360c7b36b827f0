"""Time peers that draw the same samples: in separate processes that take turns, with equal threads, after a check against one
reference."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .cores import thread_counts
from .limits import limits
from .measure import Timing, take_turns
from .networks import FOLDER, NETWORKS
from .peers import PEERS, Entry, Job
from .process import Process, left_out
from .report import Line
from .worker import LONG, order_set_up

TURN = 0.06
FEWEST_ROUNDS = 9  # a machine that is not quiet spoils one or two
MOST_ROUNDS = 60
STEP_BYTES = 12  # per element: a step reads the state and the network's output, and writes the state
PROBE_TIMES = (100, 499, 900)  # times at which a network call is compared with the reference


_workers: dict[str, tuple[int, Process]] = {}  # by the peer's name, with the number of threads that it was started for


def _worker(entry: Entry, threads: int) -> Process:
    """The peer's process for a number of threads. A new one for each number, because OpenVINO reads its cores only once."""
    started, process = _workers.get(entry.name, (0, None))
    if process is not None and process.alive and started == threads:
        return process
    if process is not None:
        process.close()
    process = Process(entry.name, ["bench.worker", entry.name])
    _workers[entry.name] = threads, process
    return process


def compare(
    job: Job, seconds: float, *, only: tuple[str, ...] | None = None, without: Mapping[str, str] = MappingProxyType({})
) -> list[Line]:
    """Time all peers for one job.

    The last lines are the peers that cannot do the job, each with its reason.

    Args:
        only: Names of the peers; None is all.
        without: Peers to leave out, with the reason.
    """
    wanted = [e for e in PEERS if (only is None or e.name in only) and e.plays(job.network)]
    entries = [e for e in wanted if e.name not in without]
    lines, ready = [], {}
    missing = [Line(e.name, job=labels(job, e), note=f"left out: {without[e.name]}") for e in wanted if e.name in without]
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
    rounds, ended = _rounds(list(ready), seconds)
    for name, answer in ended.items():
        missing.append(Line(name, job=labels(job, ready.pop(name)[0]), note=left_out(answer)))
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


def compare_all(jobs: Iterable[tuple[str, int, int]], seconds: float, **options: Any) -> list[Line]:
    """Time all peers on all jobs (network, batch, steps), with one thread and with two, with equal time for each."""
    every = [Job(*job, threads) for threads in thread_counts() for job in jobs]
    lines = []
    for job in every:
        lines += compare(job, seconds / len(every), **options)
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
    """A lower bound in seconds for the job on this machine, from its multiply-adds and bytes."""
    work, elements = _counted(job.network)
    n = job.steps * job.batch
    return limits(job.threads).floor(n * work, n * elements * STEP_BYTES, precision)


@functools.cache
def _counted(network: str) -> tuple[int, int]:
    from .modules import multiply_adds

    return multiply_adds(network), int(np.prod(NETWORKS[network].shape))


def _rounds(names: list[str], seconds: float) -> tuple[dict[str, list[float]], dict[str, dict]]:
    """Seconds per call of each round, in random order within a round; and the answers of the peers that failed."""
    failed: dict[str, dict] = {}

    def turn(name: str, calls: int, warm: bool) -> float | None:
        answer = _workers[name][1].ask({"do": "run", "calls": calls, "warm": warm})
        if "unavailable" in answer:
            failed[name] = answer
            return None
        return answer["seconds"]

    shuffle = random.Random(0)
    # One call of each decides how many calls make a turn.
    first = take_turns({n: partial(turn, n, 1, True) for n in names}, seconds=0.0, fewest=1, shuffle=shuffle)
    turns = {n: partial(turn, n, max(1, int(TURN / once)), once < LONG) for n, (once,) in first.items()}
    return take_turns(turns, seconds=seconds, fewest=FEWEST_ROUNDS, most=MOST_ROUNDS, shuffle=shuffle), failed


@functools.cache
def _reference_of(network: str, batch: int, steps: int) -> Path:
    """Write the job's noise and its float64 reference: the samples with both ways of computing ε, and network calls."""
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
    outputs = [loop.network(x, t) for t in PROBE_TIMES]
    drawn = {"sample": loop.sample(noise), "rederived": rederiving.sample(noise)}
    np.savez(path, noise=noise, x=x, times=PROBE_TIMES, outputs=outputs, **drawn)
    return path
