"""The step alone, one thread, float32, (64, 3, 256, 256): against what PyTorch needs to add two such tensors, and to draw one.

A step without noise reads two tensors and writes one, as ``torch.add`` does; with noise, drawing it is most of the work.
Each instruction set is forced by name; one that the machine lacks is skipped by name.
"""

from __future__ import annotations

import numpy as np
import torch

import diffuse_fast as df
from diffuse_fast.kernels import get_kernel, kernels, num_threads, set_num_threads
from diffuse_fast.plans.plan import Row

from ..measure import Timing, interleaved, ratio
from ..report import Line

SHAPE = (64, 3, 256, 256)
ADD_LIMIT = 1.25
NOISE_LIMITS = {"avx512": 0.6, "avx2": 0.8}
ROWS = {
    "ddim": df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon").rows[0],
    "ddim, clipped": df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon", clip=(-1, 1)).rows[0],
    "ddpm, clipped": df.plan(df.Schedule.linear(), "ddpm", 10, prediction_type="epsilon", clip=(-1, 1)).rows[0],
}


def run(seconds: float) -> list[Line]:
    threads = torch.get_num_threads(), num_threads()
    torch.set_num_threads(1)
    set_num_threads(1)
    try:
        return _run(seconds)
    finally:
        torch.set_num_threads(threads[0])
        set_num_threads(threads[1])


def _run(seconds: float) -> list[Line]:
    generator = torch.Generator().manual_seed(0)
    x, e, o = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    arrays = dict(zip("xeo", (x.numpy(), e.numpy(), o.numpy()), strict=True))
    candidates = {
        "torch.add": lambda: torch.add(x, e, out=o),
        "torch.randn": lambda: torch.randn(SHAPE, out=o, generator=generator),
    }
    skipped = []
    for info in kernels():
        if info.device != "cpu" or info.name == "reference":
            continue
        if info.unavailable is not None:
            skipped.append(Line(f"step, {info.name}", note=f"skipped: {info.unavailable}"))
            continue
        for case, row in ROWS.items():
            if info.name == "scalar" and row.stochastic:
                continue  # no target, and it would take most of the time
            candidates[f"{case}, {info.name}"] = _bound(info.name, row, arrays)
    times = interleaved(candidates, seconds=seconds)
    lines = [Line(name, seconds=Timing.of(times[name])) for name in ("torch.add", "torch.randn")]
    for name in list(candidates)[2:]:
        case, kernel = name.rsplit(", ", 1)
        noisy = ROWS[case].stochastic
        peer = "torch.randn" if noisy else "torch.add"
        limit = NOISE_LIMITS.get(kernel) if noisy else ADD_LIMIT if kernel != "scalar" else None
        lines.append(Line(name, seconds=Timing.of(times[name]), peer=peer, ratio=ratio(times, name, peer), limit=limit))
    return [*lines, *skipped]


def _bound(kernel: str, row: Row, arrays: dict[str, np.ndarray]):
    seeds, indices = np.zeros(SHAPE[0], np.uint64), np.arange(SHAPE[0], dtype=np.uint32)
    bound = get_kernel(kernel).bind(
        [row], x=arrays["x"], out=arrays["o"], outputs=[arrays["e"]], registers=None, seeds=seeds, indices=indices
    )
    return lambda: bound.run(0, 0)
