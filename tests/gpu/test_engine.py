"""The engine on a GPU: the CPU's bits for a network of exact operations, captured once, and no wait inside a trajectory."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import NetworkError, NonFiniteError, UnavailableError

pytestmark = pytest.mark.gpu

SHAPE = (2, 33)
KNOWN = {"shape": SHAPE, "seed": 3, "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}


@pytest.fixture
def module(cuda):
    """A product and two sums, each rounded separately, so that every device gives the same bits."""

    class Exact(cuda.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = cuda.nn.Parameter(cuda.tensor(0.75))

        def forward(self, x, t, label=None):
            out = x * self.weight + (t.to(x.dtype) * 2**-10)[:, None, None]
            return out if label is None else out + label.to(x.dtype)[:, None, None]

    return Exact().eval()


@pytest.fixture
def replays(cuda, monkeypatch):
    """The number of replays of each graph, by its id."""
    counts: dict[int, int] = {}
    replay = cuda.cuda.CUDAGraph.replay

    def counted(self):
        counts[id(self)] = counts.get(id(self), 0) + 1
        replay(self)

    monkeypatch.setattr(cuda.cuda.CUDAGraph, "replay", counted)
    return counts


@pytest.mark.parametrize("graph", ["tick", "trajectory", "none"])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmpp_2m", "heun"])
def test_bits(cuda, module, monkeypatch, kernel, solver, graph):
    expected = df.sample(module, 3, 6, solver=solver, **KNOWN)
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", kernel)
    got = df.sample(module.cuda(), 3, 6, solver=solver, graph=graph, **KNOWN)
    assert got.is_cuda and not got.is_inference()
    assert cuda.equal(got.cpu(), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_networks(cuda, module, dtype):
    module = module.to(getattr(cuda, dtype))
    expected = df.sample(module, 2, 5, **KNOWN)
    assert cuda.equal(df.sample(module.cuda(), 2, 5, **KNOWN).cpu(), expected)


def test_guidance_and_conditioning(cuda, module):
    call = {"cond": {"label": np.array([1, 2])}, "negative_cond": {"label": 0}, "guidance_scale": 2.0,
            "guidance_interval": (0.1, 1.0), **KNOWN}  # fmt: skip
    expected = df.sample(module, 2, 8, **call)
    assert cuda.equal(df.sample(module.cuda(), 2, 8, **call).cpu(), expected)


def test_device_arrays_are_read_on_the_device(cuda, module, monkeypatch):
    generator = cuda.Generator().manual_seed(0)
    noise, *draws = cuda.randn(7, 3, *SHAPE, generator=generator)

    def call(place):
        return {"cond": {"label": place(cuda.arange(3))}, "negative_cond": {"label": place(cuda.tensor(9))}, "noise": place(noise),
                "step_noise": lambda i: place(draws[i]), "solver": "ddpm", "guidance_scale": 2.0, **KNOWN}  # fmt: skip

    expected = df.sample(module, 3, 6, **call(lambda tensor: tensor))
    with monkeypatch.context() as patch:
        for reader in ("arguments.noise_array", "conditioning._host_array"):
            patch.setattr(f"diffuse_fast.engine.{reader}", lambda *_: pytest.fail("read on the host"))
        got = df.sample(module.cuda(), 3, 6, **call(lambda tensor: tensor.cuda()))
    assert cuda.equal(got.cpu(), expected)
    requests = [
        [df.Request(seed=1, noise=place(noise[i]), cond={"label": place(cuda.tensor(i))}) for i in range(2)]
        for place in (lambda tensor: tensor.cuda(), lambda tensor: tensor.numpy())
    ]
    plan = df.plan(KNOWN["schedule"], "euler", 5, prediction_type="epsilon")
    on_gpu = df.Sampler(module.cuda(), plan, shape=SHAPE).sample_requests(requests[0])
    np.testing.assert_array_equal(on_gpu.cpu().numpy(), df.Sampler(module.cpu(), plan, shape=SHAPE).sample_requests(requests[1]))


def test_one_graph_for_all_rows_seeds_and_plans(cuda, module, replays):
    plans = [df.plan(KNOWN["schedule"], "ddim", n, prediction_type="epsilon") for n in (9, 5)]
    sampler = df.Sampler(module.cuda(), plans[0], shape=SHAPE)
    sampler.sample(2, seed=1)
    sampler.sample(2, seed=2)
    sampler.with_plan(plans[1]).sample(2, seed=2)
    assert list(replays.values()) == [9 + 9 + 5]
    sampler.sample(3, seed=1)
    assert len(replays) == 2


def test_nothing_waits_between_the_first_row_and_the_last(cuda, module):
    sampler = df.Sampler(module.cuda(), df.plan(KNOWN["schedule"], "ddpm", 6, prediction_type="epsilon"), shape=SHAPE)
    sampler.sample(2, seed=1)

    def strict(i, x):
        cuda.cuda.set_sync_debug_mode("error" if i < 5 else "default")

    try:
        sampler.sample(2, seed=1, callback=strict)
    finally:
        cuda.cuda.set_sync_debug_mode("default")


def test_nan_is_reported_with_row_and_sample(cuda):
    def broken(x, t, label):
        return cuda.where((label == 1)[:, None, None] & (t < 400)[:, None, None], float("nan"), x)

    plan = df.plan(KNOWN["schedule"], "ddim", 8, prediction_type="epsilon")
    sampler = df.Sampler(broken, plan, shape=SHAPE, device="cuda")
    with pytest.raises(NonFiniteError) as error:
        sampler.sample(3, seed=1, cond={"label": np.array([0, 1, 2])})
    first = next(i for i, row in enumerate(plan.rows) if row.timestep < 400)
    assert (error.value.row, error.value.samples) == (first, (1,))


def test_what_cannot_be_captured_says_so_and_runs_when_asked(cuda, module):
    def looks(x, t):
        return x * (0.5 if float(x.abs().sum()) > 0 else 1.0)

    with pytest.raises(NetworkError, match="cannot be captured in a CUDA graph"):
        df.sample(looks, 1, 3, device="cuda", **KNOWN)
    assert df.sample(looks, 1, 3, device="cuda", graph="none", **KNOWN).is_cuda
    assert df.sample(module.cuda(), 1, 3, **KNOWN).is_cuda  # the device is usable again


def test_requests(cuda, module):
    plans = [df.plan(KNOWN["schedule"], "ddim", n, prediction_type="epsilon") for n in (4, 7)]
    requests = [df.Request(plan=p, seed=i) for i, p in enumerate(plans)]
    expected = df.Sampler(module, plans[0], shape=SHAPE).sample_requests(requests)
    got = df.Sampler(module.cuda(), plans[0], shape=SHAPE).sample_requests(requests)
    np.testing.assert_array_equal(got.cpu().numpy(), expected)


def test_a_missing_device(cuda, module):
    with pytest.raises(UnavailableError, match="this machine has"):
        df.sample(module, 1, 2, device="cuda:63", **KNOWN)


def test_weights_that_move_are_captured_again(cuda, module):
    plan = df.plan(KNOWN["schedule"], "ddim", 4, prediction_type="epsilon")
    sampler = df.Sampler(module.cuda(), plan, shape=SHAPE)
    sampler.sample(2, seed=1)
    module.weight.data = module.weight.data * 2
    assert cuda.equal(sampler.sample(2, seed=1), df.Sampler(module, plan, shape=SHAPE).sample(2, seed=1))
