"""onnxruntime, driven by diffusers' scheduler: torch's exported file, ``session.run`` on NumPy arrays, as its tutorials do."""

from __future__ import annotations

import onnxruntime
import torch

from ..networks import NETWORKS, plain
from .base import Job
from .diffusers import Scheduled


def make(job: Job) -> Scheduled:
    torch.set_num_threads(job.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(plain(job.network), options, providers=["CPUExecutionProvider"])
    cond = NETWORKS[job.network].conditioning(job.batch)

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "t": t.contiguous().numpy(), **cond})[0])

    return Scheduled(job, call)
