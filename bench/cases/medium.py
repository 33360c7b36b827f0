"""A medium network, the 35.7 M UNet of DDPM on CIFAR-10 with random weights: one sample (latency) and eight (throughput)."""

from __future__ import annotations

from ..peers import PEERS
from ..report import Line
from ..sampling import compare_all

JOBS = (("cifar10", 1, 2), ("cifar10", 8, 1))

WITHOUT = {e.name: "compiling it takes longer than the rest of the case" for e in PEERS if e.options.get("freezing")}


def run(seconds: float) -> list[Line]:
    return compare_all(JOBS, seconds, without=WITHOUT)
