"""A process of its own for one peer: ``python -m bench.worker NAME`` takes orders as lines of JSON, and answers in kind.

Peers share no thread pool, no allocator and no setting, and one that crashes takes nobody along. ``--once JOB`` draws one batch
and leaves: what a cold start takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from .cores import cores
from .peers import PEERS, Entry, Job
from .peers.base import Unavailable

LONG = 0.1  # seconds of a call, beyond which bringing its data and code back into the caches is nothing beside it

# The most that one network call may be off by, relatively: what is off by more computes something else, and is not timed.
MOST_ERROR = {"float32": 1e-3, "float32-fast": 1e-3, "bfloat16": 0.2, "int8": 0.2}


def main() -> None:
    entry = next(e for e in PEERS if e.name == sys.argv[1])
    if sys.argv[2:3] == ["--once"]:
        job = Job(**json.loads(sys.argv[3]))
        pin(job.threads)
        entry.make(job).sample()
        print(_peak())
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    serve(entry, answers)


def serve(entry: Entry, answers) -> None:
    from diffuse_fast.tuning.wait_idle import wait_idle as rest  # here: with it comes what the cold start of a peer must not pay

    peer = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "set up":
                peer = None
                peer, answer = set_up(entry, Job(**order["job"]), order["reference"])
            elif order["do"] == "run":
                answer = {"seconds": timed(peer.sample, order["calls"], order["warm"])}
                rest()  # or the next one's turn begins with a core less
        except Exception as error:
            answer = {"unavailable": f"{type(error).__name__}: {error}" if type(error).__name__ != "Unavailable" else str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def set_up(entry: Entry, job: Job, reference: str):
    import numpy as np

    pin(job.threads)
    begin = time.perf_counter()
    peer = entry.make(job)
    peer.sample()
    ready = time.perf_counter() - begin
    known = np.load(reference)
    expected = known["rederived" if entry.rederives else "sample"]
    got = peer.sample(known["noise"])
    # Of the samples, of the largest value; and of one network call, in the 2-norm, the worst of the times.
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    errors = [
        np.linalg.norm(peer.network(known["x"], int(t)) - output) / np.linalg.norm(output)
        for t, output in zip(known["times"], known["outputs"], strict=True)
    ]
    error_of_call = float(np.max(errors))  # NaN of any is NaN
    if not np.isfinite(error) or not error_of_call <= MOST_ERROR[entry.precision]:
        raise Unavailable(f"its network call is off by {error_of_call:.2g}, its samples by {error:.2g}")
    check_pinned(job.threads)
    return peer, {"error": error, "error_of_call": error_of_call, "set_up": ready}


def timed(run, calls: int, warm: bool) -> float:
    """Seconds per call; with ``warm``, after an untimed call that warms the caches."""
    if warm:
        run()
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def pin(threads: int) -> None:
    """Pin the process to as many cores as threads, including the existing threads of a library."""
    chosen = cores(threads)
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(task.name), chosen)


def check_pinned(threads: int) -> None:
    """Check that every thread is on the cores of :func:`pin`: some libraries move theirs and would get more cores.

    Raises:
        Unavailable: one has left; a time taken so would compare different machines.
    """
    chosen = set(cores(threads))
    for task in Path("/proc/self/task").iterdir():
        try:
            left = set(os.sched_getaffinity(int(task.name))) - chosen
        except ProcessLookupError:  # it ended meanwhile
            continue
        if left:
            raise Unavailable(f"it runs on processor {min(left)} as well, beside the {threads} it was given")


def _peak() -> int:
    """Peak resident bytes of this process."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024


def order_set_up(job: Job, reference: Path) -> dict:
    return {"do": "set up", "job": asdict(job), "reference": str(reference)}


if __name__ == "__main__":
    main()
