"""Tiny networks, one sample: an MLP on 2-D data and the 1-D UNet of a robot policy. The loop is most of the time."""

from __future__ import annotations

from ..report import Line
from ..sampling import compare_all

JOBS = (("mlp", 1, 50), ("policy", 1, 16))


def run(seconds: float) -> list[Line]:
    return compare_all(JOBS, seconds)
