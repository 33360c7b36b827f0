"""The forward process at (128, 3, 32, 32), float32: x_t and the target from clean data, over the torch operations it replaces.

torch draws the noise with randn and makes x_t and v = alpha·z − sigma·x0 as a training script writes them, with as many
threads. The target: four times as fast.
"""

from __future__ import annotations

import torch

import diffuse_fast as df
from diffuse_fast.kernels import forward, num_threads, set_num_threads

from ..measure import Timing, interleaved
from ..report import Line

SHAPE = (128, 3, 32, 32)
LIMIT = 0.25


def run(seconds: float) -> list[Line]:
    before = num_threads(), torch.get_num_threads()
    lines = []
    try:
        for threads in sorted({1, before[0]}):
            set_num_threads(threads)
            torch.set_num_threads(threads)
            lines += _run(seconds / 2, threads)
    finally:
        set_num_threads(before[0])
        torch.set_num_threads(before[1])
    return lines


def _run(seconds: float, threads: int) -> list[Line]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(SHAPE, generator=generator)
    times = torch.randint(1000, SHAPE[:1], generator=generator)
    table = torch.tensor(df.Schedule.linear().alphas_cumprod)
    alpha, sigma = table[times].sqrt().float(), (1 - table[times]).sqrt().float()
    each = (-1, 1, 1, 1)

    def in_torch(make_v: bool) -> None:
        noise = torch.randn(SHAPE, generator=generator)
        a, s = alpha.reshape(each), sigma.reshape(each)
        _ = a * x0 + s * noise
        if make_v:
            _ = a * noise - s * x0

    a, s = alpha.numpy(), sigma.numpy()
    out = torch.empty(SHAPE), torch.empty(SHAPE)
    work = {
        "x_t and epsilon": lambda: forward(x0, a, s, target=(0.0, 1.0), seed=1, out=out),
        "x_t and epsilon, torch": lambda: in_torch(False),
        "x_t and v": lambda: forward(x0, a, s, target=(-s, a), seed=1, out=out),
        "x_t and v, torch": lambda: in_torch(True),
    }
    measured = interleaved(work, seconds=seconds)
    return [
        Line(
            f"{name}, {threads} threads",
            seconds=Timing.of(measured[name]),
            peer="torch",
            ratio=Timing.of(measured[name] / measured[f"{name}, torch"]),
            limit=LIMIT,
        )
        for name in ("x_t and epsilon", "x_t and v")
    ]
