"""The torch device on CPU tensors, with the driver's calls replaced; the engine around it is the real one."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.devices.base import Backend
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, NetworkError, NonFiniteError

torch = pytest.importorskip("torch")

from diffuse_fast.engine.devices.torch import TorchDevice  # noqa: E402  (only where there is torch)
from diffuse_fast.runtimes.torch_cuda import network  # noqa: E402

SHAPE = (2, 5)
KNOWN = {"shape": SHAPE, "seed": 3}


def plan(solver="ddpm", steps=6):
    return df.plan(df.Schedule.linear(), solver, steps, prediction_type="epsilon")


class Elementwise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.75))

    def forward(self, x, t, label=None):
        out = x * self.weight + (t.to(x.dtype) / 1024)[:, None, None]
        return out if label is None else out + label.to(x.dtype)[:, None, None]


class Stream:
    cuda_stream = 7

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def log(monkeypatch):
    """What would go to the driver."""
    events: list[str] = []
    current = Stream(events, "current")

    @contextmanager
    def stream(chosen):
        events.append(f"on {chosen.name}")
        yield
        events.append(f"off {chosen.name}")

    class Graph:
        def replay(self):
            events.append("replay")

    @contextmanager
    def graph(captured, *, pool, stream, capture_error_mode):
        assert isinstance(captured, Graph)
        events.append(f"capture on {stream.name}, {capture_error_mode}, pool {pool}")
        try:
            yield
        except Exception as error:
            # As torch does: what is raised at the end hides what went wrong.
            raise RuntimeError("operation failed due to a previous error during capture") from error

    @contextmanager
    def device(chosen):
        yield

    for name, value in {
        "current_stream": lambda d: current,
        "stream": stream,
        "graph": graph,
        "CUDAGraph": Graph,
        "device": device,
        "graph_pool_handle": lambda: "p",
        "synchronize": lambda d: events.append("wait"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return events


@pytest.fixture
def here(log, tensor_kernel, monkeypatch):
    """``here(module, plan, **options)``: a Sampler on a TorchDevice whose tensors are the CPU's."""

    def make(module, chosen, **options):
        device = object.__new__(TorchDevice)
        device.name, device._device, device._side = "cuda:0", torch.device("cpu"), Stream(log, "side")
        with monkeypatch.context() as patch:
            backend = Backend(device, network(module), tensor_kernel(device))
            patch.setattr("diffuse_fast.engine.setup.backend_for", lambda *_: backend)
            return df.Sampler(module, chosen, shape=SHAPE, **options)

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m"])
def test_bits_are_those_of_the_cpu_for_every_dtype(here, solver, dtype):
    module = Elementwise().to(dtype).eval()
    expected = df.Sampler(module, plan(solver), shape=SHAPE).sample(3, seed=5)
    got = here(module, plan(solver), graph="none").sample(3, seed=5)
    assert got.dtype == torch.float32 and not got.is_inference()
    assert torch.equal(got, expected)


def test_guidance_noise_tensors_and_batches(here):
    module = Elementwise().eval()
    noise = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    call = {"cond": {"label": torch.arange(4)}, "negative_cond": {"label": 9}, "noise": noise, "seed": 1, "batch_size": 3}
    guided = {"guidance_scale": 1.5, "guidance_interval": (0.1, 1.0)}
    expected = df.Sampler(module, plan(), shape=SHAPE, **guided).sample(4, **call)
    assert torch.equal(here(module, plan(), graph="none", **guided).sample(4, **call), expected)


def test_a_result_can_go_into_a_graph_of_autograd(here):
    got = here(Elementwise().eval(), plan(), graph="none").sample(1, seed=0)
    weight = torch.ones(SHAPE, requires_grad=True)
    (got * weight).sum().backward()
    assert torch.equal(weight.grad, got[0])


def test_warm_up_and_capture_are_as_torch_asks(here, log):
    sampler = here(Elementwise().eval(), plan("ddim", 4))
    sampler.sample(1, seed=0)
    warm = ["side waits for current", "on side", "off side", "current waits for side"]
    capture = ["capture on side, thread_local, pool p"]
    assert log == warm * 2 + capture + ["replay"] * 4  # for what the network returns, and for what the step loads
    sampler.sample(1, seed=1)
    assert log[9:] == ["replay"] * 8


def test_what_broke_a_capture_is_named(here):
    class Looking(torch.nn.Module):
        calls = 0

        def forward(self, x, t):
            self.calls += 1
            if self.calls > 2:  # the warm-up may look
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
            return x

    with pytest.raises(NetworkError) as error:
        here(Looking().eval(), plan("ddim", 4)).sample(1, seed=0)
    text = str(error.value)
    assert "cannot be captured in a CUDA graph: RuntimeError: CUDA error: operation not permitted" in text
    assert "graph='none'" in text


def test_given_step_noise(here):
    draws = np.random.default_rng(0).standard_normal((6, 2, *SHAPE)).astype(np.float32)
    module = Elementwise().eval()
    expected = df.Sampler(module, plan(), shape=SHAPE).sample(2, seed=1, step_noise=lambda i: draws[i])
    got = here(module, plan(), graph="none").sample(2, seed=1, step_noise=lambda i: torch.from_numpy(draws[i]))
    assert torch.equal(got, expected)


class There:
    """An array of another library: a tensor of the CPU that says it is on cuda:0."""

    def __init__(self, tensor):
        self.tensor, self.streams = tensor, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream, **_):
        self.streams.append(stream)
        return self.tensor.__dlpack__()


def test_arrays_of_other_libraries_are_tensors_at_the_same_address(here):
    device = here(Elementwise().eval(), plan(), graph="none").setup.device
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        given = There(torch.ones(3, 4, dtype=dtype))
        taken = device.take("cond", given)
        assert (taken.data_ptr(), taken.dtype) == (given.tensor.data_ptr(), dtype)
        assert given.streams == [7]  # what was written is waited for where it is read
    with pytest.raises(ArgumentError, match="noise is on meta; the model is sampled on cuda:0"):
        device.take("noise", torch.zeros(2, device="meta"))
    with pytest.raises(ArgumentTypeError, match=r"cond has dtype torch\.complex64; it must be real"):
        device.take("cond", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ArgumentTypeError, match=r"noise has dtype torch\.int64; it must be floating"):
        device.take_noise("noise", torch.zeros(2, dtype=torch.int64))


def test_what_device_of_the_device_gives_the_bits_of_the_host(here, log):
    module, generator = Elementwise().eval(), torch.Generator().manual_seed(0)
    noise, *draws = torch.randn(7, 3, *SHAPE, generator=generator)
    guided = {"guidance_scale": 1.5}

    def call(place):
        cond = {"cond": {"label": place(torch.arange(3))}, "negative_cond": {"label": place(torch.tensor(9))}}
        return {**cond, "noise": place(noise), "step_noise": lambda i: place(draws[i])}

    expected = df.Sampler(module, plan(), shape=SHAPE, **guided).sample(3, **call(lambda tensor: tensor))
    sampler = here(module, plan(), graph="none", **guided)
    log.clear()
    assert torch.equal(sampler.sample(3, **call(There)), expected)
    # One value for all samples, which is stacked; and the noise of each row: its memory may be used anew when it was given.
    assert log.count("wait") == 1 + sum(row.s != 0 for row in plan().rows)
    requests = [
        [
            df.Request(plan=plan("euler", 3), noise=place(noise[0]), cond={"label": place(torch.tensor(2))}),
            df.Request(seed=1, cond={"label": 3}),
        ]
        for place in (There, lambda tensor: tensor.numpy())
    ]
    expected = df.Sampler(module, plan(), shape=SHAPE).sample_requests(requests[1])
    assert torch.equal(here(module, plan(), graph="none").sample_requests(requests[0]), torch.from_numpy(expected))


def test_requests_come_back_as_a_tensor(here):
    module = Elementwise().eval()
    requests = [df.Request(plan=plan("ddim", n), seed=n) for n in (3, 5)]
    expected = df.Sampler(module, plan(), shape=SHAPE).sample_requests(requests)
    got = here(module, plan(), graph="none").sample_requests(requests)
    assert torch.equal(got, torch.from_numpy(expected))


def test_a_module_may_work_in_place(here):

    class Changes(Elementwise):
        def forward(self, x, t, label=None):
            if t.is_floating_point():
                t.mul_(0.5)
            if label is not None:
                label.mul_(0.5)
            return super().forward(x.mul_(0.5), t, label)

    class Keeps(Elementwise):
        def forward(self, x, t, label=None):
            return super().forward(x * 0.5, t * 0.5 if t.is_floating_point() else t, None if label is None else label * 0.5)

    table = df.plan(df.Schedule.linear(), "ddim", 5, prediction_type="epsilon", timesteps=[900.5, 600, 300.25, 100, 3])
    call = {"cond": {"label": np.full(2, 0.5, np.float32)}, "seed": 1}
    expected = here(Keeps().eval(), table, graph="none").sample(2, **call)
    assert torch.equal(here(Changes().eval(), table, graph="none").sample(2, **call), expected)
    guided = {"guidance_scale": 1.5}
    against = {"negative_cond": {"label": np.full(2, 0.25, np.float32)}}
    expected = here(Keeps().eval(), table, graph="none", **guided).sample(2, **call, **against)
    assert torch.equal(here(Changes().eval(), table, graph="none", **guided).sample(2, **call, **against), expected)


def test_bad_requests_have_their_numbers_in_the_call(here):
    class Bad(Elementwise):
        def forward(self, x, t, label):
            return super().forward(x, t) + torch.where(label == 4, torch.nan, 0.0)[:, None, None]

    sampler = here(Bad().eval(), plan("ddim", 3), graph="none")
    requests = [df.Request(seed=i, cond={"label": i}) for i in range(5)]
    with pytest.raises(NonFiniteError, match="sample 4") as caught:
        sampler.sample_requests(requests, batch_size=3)
    assert caught.value.samples == (4,)
    with pytest.raises(ArgumentError, match="noise of request 3"):
        sampler.sample_requests([*requests[:3], df.Request(noise=np.zeros(3, np.float32), cond={"label": 0})], batch_size=2)
