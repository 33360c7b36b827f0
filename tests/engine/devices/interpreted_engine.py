"""The engine with torch's device and the Triton kernel, on CPU tensors through triton's interpreter: run by test_triton.py
in a process of its own. Only the driver's calls are replaced; a graph is its function, run again."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

import diffuse_fast as df
from diffuse_fast.engine import setup as of_setup
from diffuse_fast.engine.devices.base import Backend
from diffuse_fast.engine.devices.torch import TorchDevice
from diffuse_fast.kernels.triton import TritonKernel
from diffuse_fast.runtimes.torch_cuda import network

SHAPE = (2, 37)
splat = interpreter.InterpreterBuilder.create_splat


def create_splat(self, kind, value):
    """A scalar comparison that is broadcast stays a truth value: the interpreter makes it a float."""
    if value.data.dtype == np.bool_:
        return interpreter.TensorHandle(np.full(kind.shape, value.data[0]), tl.int1)
    return splat(self, kind, value)


class Device(TorchDevice):
    def capture(self, run, pool):
        return SimpleNamespace(replay=run)


class Elementwise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.75))

    def forward(self, x, t, label=None):
        out = x * self.weight + (t.to(x.dtype) / 1024)[:, None, None]
        return out if label is None else out + label.to(x.dtype)[:, None, None]


def here(module, plan, **options):
    device = object.__new__(Device)
    stream = SimpleNamespace(wait_stream=lambda other: None, cuda_stream=0)
    device.name, device._device, device._side = "cuda:0", torch.device("cpu"), stream
    on_cpu, of_setup.backend_for = of_setup.backend_for, lambda *_: Backend(device, network(module), TritonKernel())
    try:
        return df.Sampler(module, plan, shape=SHAPE, **options)
    finally:
        of_setup.backend_for = on_cpu


def plan(solver, steps=3, **options):
    return df.plan(df.Schedule.linear(), solver, steps, prediction_type="epsilon", **options)


def main():
    interpreter.InterpreterBuilder.create_splat = create_splat
    interpreted_stream = SimpleNamespace(wait_stream=lambda other: None, cuda_stream=0)
    torch.cuda.current_stream = lambda device: interpreted_stream
    torch.cuda.stream = torch.cuda.device = lambda chosen: nullcontext()
    torch.cuda.graph_pool_handle = lambda: 0
    module, guided = Elementwise().eval(), {"guidance_scale": 1.5, "guidance_interval": (0.5, 50.0)}
    churn = {"s_churn": 3.0, "s_tmax": 50.0, "timestep_spacing": "karras"}
    reduced = plan("ddim", clip=df.DynamicThreshold(0.9))
    for chosen in (plan("ddim", clip=(-1, 1)), plan("dpmpp_2m"), plan("heun", **churn), reduced):
        same(here(module, chosen).sample(3, seed=5), df.Sampler(module, chosen, shape=SHAPE).sample(3, seed=5))
    half, noisy = Elementwise().half().eval(), plan("ddpm")
    same(here(half, noisy, graph="trajectory").sample(3, seed=5), df.Sampler(half, noisy, shape=SHAPE).sample(3, seed=5))
    call = {"cond": {"label": np.arange(3)}, "negative_cond": {"label": 9}, "seed": 1}
    same(here(module, noisy, **guided).sample(3, **call), df.Sampler(module, noisy, shape=SHAPE, **guided).sample(3, **call))
    requests = [df.Request(plan=plan("ddim", n), seed=n) for n in (2, 4)]
    expected = df.Sampler(module, noisy, shape=SHAPE).sample_requests(requests)
    same(here(module, noisy).sample_requests(requests), torch.from_numpy(expected))


def same(got, expected):
    assert torch.equal(got, expected), float((got - expected).abs().max())


if __name__ == "__main__":
    main()
