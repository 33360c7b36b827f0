"""MNN, driven by diffusers' scheduler: torch's exported file through its converter, precision ``high``, as its manual says.

The converter is called in its compiled module, never by the command ``mnnconvert`` around it: that runs ``pip install`` for a
logging package, in whatever environment it finds, and reports its use to a server.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import MNN
import numpy as np
import torch

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
    target = FOLDER / f"{name}.mnn"
    if not target.exists():
        draft = target.with_suffix(".draft")
        arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", plain(name), "--MNNModel", draft, "--bizCode", "bench"]
        code = f"import _tools; _tools.mnnconvert({[str(a) for a in arguments]!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode or not draft.exists():
            raise Unavailable(f"its converter failed: {' '.join((done.stderr or done.stdout).strip().splitlines()[-1:])}")
        draft.rename(target)
    return target
