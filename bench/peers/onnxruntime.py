"""onnxruntime, driven by diffusers' scheduler or by a loop in NumPy: torch's exported file, ``session.run`` on arrays, as its
tutorials do."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from ..networks import NETWORKS, plain
from .base import Job
from .diffusers import Scheduled
from .numpy_loop import NumpyLoop


def make(job: Job, *, loop: bool = False) -> Scheduled | NumpyLoop:
    torch.set_num_threads(job.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(plain(job.network), options, providers=["CPUExecutionProvider"])
    cond = NETWORKS[job.network].conditioning(job.batch)

    def call(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return session.run(None, {"x": x, "t": t, **cond})[0]

    return NumpyLoop(job, call) if loop else Scheduled.of_arrays(job, call)
