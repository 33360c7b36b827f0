"""OpenVINO with diffusers' scheduler or a loop in NumPy: latency hint, explicit precision, shared inputs and outputs.

On a machine with bfloat16 OpenVINO uses it by default. Without it, OpenVINO accepts the hint but computes in float32, so the
property is read back.
"""

from __future__ import annotations

import numpy as np
import torch

from diffuse_fast import telemetry

from ..networks import NETWORKS, plain
from .base import Job, Unavailable
from .diffusers import Scheduled
from .numpy_loop import NumpyLoop

with telemetry.declined_by_openvino():
    import openvino


def make(job: Job, *, precision: str = "f32", loop: bool = False) -> Scheduled | NumpyLoop:
    torch.set_num_threads(job.threads)
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job.threads, "INFERENCE_PRECISION_HINT": precision}
    core = openvino.Core()
    model = core.read_model(plain(job.network))
    shape = (job.batch, *NETWORKS[job.network].shape)
    cond = NETWORKS[job.network].conditioning(job.batch)
    model.reshape({"x": shape, "t": (job.batch,), **{name: value.shape for name, value in cond.items()}})
    compiled = core.compile_model(model, "CPU", config)
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if actual != precision:
        raise Unavailable(f"OpenVINO computes in {actual} here, not in {precision}")
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("this machine has no bfloat16")
    request = compiled.create_infer_request()

    def call(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return request.infer({"x": x, "t": t, **cond}, share_inputs=True, share_outputs=True)[0]

    return NumpyLoop(job, call) if loop else Scheduled.of_arrays(job, call)
