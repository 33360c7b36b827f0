"""How times grow with samples, steps, resolution and threads: this project and the peers that need no compiler."""

from __future__ import annotations

from dataclasses import replace

from ..cores import allowed, thread_counts
from ..peers import Job
from ..report import Line
from ..sampling import compare

ONLY = ("diffuse_fast", "torch loop", "diffusers", "onnxruntime + diffusers", "OpenVINO + diffusers")
AXES = {
    "samples": [Job("digits", n, 5, 1) for n in (1, 4, 16, 64)],
    "steps": [Job("mlp", 1, n, 1) for n in (5, 10, 50, 200)],
    "resolution": [Job(f"unet{n}", 1, 2, 1) for n in (16, 28, 56)],
    "threads": [Job("unet28", 4, 2, n) for n in sorted({*thread_counts(), len(allowed())})],
}


def run(seconds: float) -> list[Line]:
    share = seconds / sum(len(jobs) for jobs in AXES.values())
    return [_on(axis, line) for axis, jobs in AXES.items() for job in jobs for line in compare(job, share, only=ONLY)]


def _on(axis: str, line: Line) -> Line:
    return replace(line, job={**(line.job or {}), "axis": axis})
