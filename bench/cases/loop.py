"""The sampling loop around a tiny network, batch 1: what it adds to the network's own calls.

The network is an MLP on 2-D data in an ONNX file; the peer calls the session alone, inputs and output bound, as often; both on one
thread. The target: the loop at most doubles it.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import diffuse_fast as df

from ..measure import Timing, interleaved
from ..report import Line

STEPS = 50


class TinyMLP(torch.nn.Module):
    """4 layers of 64 on (x, t), as robot policies and toy data use."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 64, 64, 64, 2)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        h = torch.cat([x, t[:, None].float() / 1000], dim=1)
        for layer in self.layers[:-1]:
            h = torch.nn.functional.silu(layer(h))
        return self.layers[-1](h)


def run(seconds: float) -> list[Line]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        model = df.export(TinyMLP().eval(), path, shape=(2,), schedule=df.Schedule.linear(), prediction_type="epsilon")
        return _run(model, path, seconds)


def _run(model: df.Model, path: Path, seconds: float) -> list[Line]:
    plan = df.plan(model.schedule, "ddim", STEPS, prediction_type=model.prediction_type)
    noisy = df.plan(model.schedule, "ddpm", STEPS, prediction_type=model.prediction_type)
    bare = _bare(path)
    candidates = {
        f"{STEPS} bare run_with_iobinding": bare,
        f"Sampler.sample, {STEPS} DDIM steps": _sampling(df.Sampler(model, plan, threads=1)),
        f"Sampler.sample, {STEPS} DDPM steps": _sampling(df.Sampler(model, noisy, threads=1)),
    }
    times = interleaved(candidates, seconds=seconds)
    names = list(candidates)
    peer = times[names[0]]
    lines = [Line(name, seconds=Timing.of(times[name])) for name in names]
    for name in names[1:]:
        over = Timing.of(times[name] / peer - 1)
        lines.append(Line(f"the loop alone: {name}", seconds=Timing.of(times[name] - peer), peer=names[0], ratio=over, limit=1.0))
    one_call = f"df.sample, {STEPS} DDIM steps"
    whole = interleaved({names[0]: bare, one_call: lambda: df.sample(model, 1, STEPS, seed=0, threads=1)}, seconds=seconds / 4)
    return [*lines, Line(one_call, seconds=Timing.of(whole[one_call]), note="makes its Sampler in every call")]


def _sampling(sampler: df.Sampler):
    return lambda: sampler.sample(1, seed=0)


def _bare(path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    keep = []
    for value in session.get_inputs():
        array = np.zeros((1, *value.shape[1:]), {"tensor(float)": np.float32, "tensor(int64)": np.int64}[value.type])
        binding.bind_input(value.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        keep.append(array)
    out = np.zeros((1, 2), np.float32)
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, out.shape, out.ctypes.data)

    def run() -> object:
        for _ in range(STEPS):
            session.run_with_iobinding(binding)
        return keep, out

    return run
