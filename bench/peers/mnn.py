"""MNN, driven by diffusers' scheduler: torch's exported file through its converter, precision ``high``, as its manual says."""

from __future__ import annotations

from pathlib import Path

import MNN
import numpy as np
import torch

from ..mnn import convert, prepared
from ..networks import FOLDER, NETWORKS, plain
from .base import Job, Unavailable
from .diffusers import Scheduled


def make(job: Job) -> Scheduled:
    torch.set_num_threads(job.threads)
    net = NETWORKS[job.network]
    cond = net.conditioning(job.batch)
    names = ["x", "t", *cond]
    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": job.threads},))
    file = str(_converted(job.network))
    module = MNN.nn.load_module_from_file(file, names, ["output"], runtime_manager=manager, shape_mutable=True)

    def variable(array):
        if array.dtype == "int64":
            array = array.astype("int32")
        kind = {"float32": MNN.expr.float, "int32": MNN.expr.int}[str(array.dtype)]
        return MNN.expr.const(array, list(array.shape), MNN.expr.NCHW, kind)

    fixed = [variable(value) for value in cond.values()]

    def call(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        out = module.forward([variable(x), variable(t), *fixed])[0]
        return MNN.expr.convert(out, MNN.expr.NCHW).read().copy()

    return Scheduled.of_arrays(job, call)


def _converted(name: str) -> Path:
    """Torch's file, or ours where the converter refuses torch's."""
    target = FOLDER / f"{name}.mnn"
    if target.exists():
        return target
    try:
        return convert(plain(name), target)
    except Unavailable:
        return prepared(name)
