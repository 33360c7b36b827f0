"""Small networks: the bundled digits and a 28x28 UNet of 4 M parameters, one sample (latency), 16 and 64 (throughput).

The larger jobs draw with few steps, so that a round stays short; every step costs the same.
"""

from __future__ import annotations

from ..report import Line
from ..sampling import compare_all

JOBS = (("digits", 1, 20), ("digits", 16, 10), ("digits", 64, 4), ("unet28", 1, 10), ("unet28", 16, 2), ("unet28", 64, 1))


def run(seconds: float) -> list[Line]:
    return compare_all(JOBS, seconds)
