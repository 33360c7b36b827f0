"""The whole engine for model files on ``device="cuda"``, on the step compiled for the host: bit for bit the CPU's engine.

onnxruntime is a stand-in that computes a function of NumPy on the memory that it was bound to; all else is what runs on a GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.machinery
import sys
import threading
import types
from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.engine.devices import choose as devices
from diffuse_fast.engine.devices.core import core_device
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, NonFiniteError, UnavailableError
from diffuse_fast.kernels import cuda, device_array, registry
from tests.cuda.on_device import on_device

LINEAR = df.Schedule.linear()


def network(x, t, label):
    """Elementwise, so that a sample does not depend on its batch."""
    scale = (1 + np.asarray(t) / 1000).astype(np.float32)[:, None, None, None]
    return np.tanh(x * scale + label.astype(np.float32)[:, None, None, None] / 8)


def memory(dtype, shape, address):
    """The memory at an address as an array."""
    count = int(np.prod(shape))
    raw = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(raw, dtype, count).reshape(shape)


class Binding:
    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, device, index, dtype, shape, address):
        assert (device, index) == ("cuda", 0)
        self.inputs[name] = memory(dtype, shape, address)

    def bind_output(self, name, device, index, dtype, shape, address):
        self.outputs[name] = memory(dtype, shape, address)


class Options:
    def add_session_config_entry(self, key, value): ...

    add_run_config_entry = add_session_config_entry


@pytest.fixture
def there(core, monkeypatch):
    """Pretends that this machine has a GPU and onnxruntime has CUDA. Sessions compute ``function``; ``calls`` counts their runs."""
    state = SimpleNamespace(function=network, calls=0, inputs={"x": "float", "t": "int64", "label": "int64"}, waits=[])

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            self.providers = providers
            assert providers[0][1]["user_compute_stream"] == str(core_device(0).stream)

        def get_providers(self):
            return [name for name, _ in self.providers]

        def get_inputs(self):
            shapes = {"x": ["B", 1, 8, 8], "t": ["B"], "label": ["B"]}
            return [SimpleNamespace(name=n, type=f"tensor({kind})", shape=shapes[n]) for n, kind in state.inputs.items()]

        def io_binding(self):
            return Binding()

        def run_with_iobinding(self, binding, options):
            core.finish()  # the work queued before it
            state.calls += 1
            binding.outputs["output"][...] = state.function(**binding.inputs)

    ort = types.ModuleType("onnxruntime")
    ort.__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)
    vars(ort).update(
        __version__="9.9",
        SessionOptions=Options,
        RunOptions=Options,
        InferenceSession=Session,
        preload_dlls=lambda: None,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )

    def forget():
        for cached in (core_device, registry.kernels, registry._get):
            cached.cache_clear()

    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setattr(devices, "onnxruntime_reason", lambda: None)
    monkeypatch.setattr(
        devices, "_core", SimpleNamespace(cuda_unavailable_reason=core.cuda_unavailable_reason, environment=_core.environment)
    )
    kernel = dataclasses.replace(registry._IMPLEMENTATIONS["cuda"], unavailable=core.cuda_unavailable_reason)
    monkeypatch.setitem(registry._IMPLEMENTATIONS, "cuda", kernel)
    monkeypatch.delenv("DIFFUSE_FAST_KERNEL", raising=False)
    forget()
    yield state
    forget()


@pytest.fixture
def model(there):
    return df.load(df.load("digits").path)  # a new object, so that it shares no session with other tests


def plan(solver="ddim", steps=6, **options):
    return df.plan(LINEAR, solver, steps, prediction_type="v_prediction", **options)


PLANS = {
    "ddim": plan(),
    "ddpm, clipped": plan("ddpm", 7, clip=(-1, 1)),
    "dpmpp_2m": plan("dpmpp_2m", 8),
    "dpmpp_3m_sde": plan("dpmpp_3m_sde", 6),
    "unipc": plan("unipc", 6),
    "pndm": plan("pndm", 6),
    "dynamic threshold": plan(steps=3, clip=df.DynamicThreshold(0.9)),
    "a longer table": plan("ddim", 70),
}
LABELS = {"label": np.array([1, 2, 3])}


def cpu(chosen, **options):
    return df.Sampler(network, chosen, shape=(1, 8, 8), **options)


@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_bits_are_those_of_the_cpu(model, there, chosen):
    for graph in ("none", "tick"):
        sampler = df.Sampler(model, chosen, device="cuda", graph=graph)
        there.calls = 0
        expected = cpu(chosen).sample(3, seed=5, cond=LABELS)
        for _ in range(2):  # the static memory is as good as new
            got = sampler.sample(3, seed=5, cond=LABELS)
            assert isinstance(got, np.ndarray) and got.dtype == np.float32
            np.testing.assert_array_equal(got, expected)
    assert there.calls == 2 * chosen.nfe + 1  # one for the form of what it returns


def test_batches_seeds_and_other_plans(model):
    sampler = df.Sampler(model, PLANS["ddpm, clipped"], device="cuda:0")
    for chosen in (PLANS["ddpm, clipped"], PLANS["unipc"], PLANS["dynamic threshold"], PLANS["a longer table"], PLANS["ddim"]):
        got = sampler.with_plan(chosen).sample(3, seed=[4, 2**63, 4], batch_size=2, cond=LABELS)
        np.testing.assert_array_equal(got, cpu(chosen).sample(3, seed=[4, 2**63, 4], cond=LABELS))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_in_an_interval(model, rescale):
    options = {"guidance_scale": 2.5, "guidance_interval": (0.1, 1.0), "guidance_rescale": rescale}
    chosen = plan("ddpm", 8)
    got = df.Sampler(model, chosen, device="cuda", **options).sample(3, seed=1, cond=LABELS, negative_cond={"label": 10})
    expected = cpu(chosen, **options).sample(3, seed=1, cond=LABELS, negative_cond={"label": 10})
    if rescale:  # sums in another order
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(got, expected)


def test_requests(model):
    plans = [plan("ddim", 3), plan("dpmpp_2m", 7), plan("pndm", 4), None]
    scales = (None, 2.0, None, 1.0)
    requests = [
        df.Request(plan=p, seed=i, index=i, cond={"label": i}, guidance_scale=g, negative_cond={"label": 9} if g == 2.0 else None)
        for i, (p, g) in enumerate(zip(plans, scales, strict=True))
    ]
    got = df.Sampler(model, plan("ddpm", 4), device="cuda").sample_requests(requests)
    np.testing.assert_array_equal(got, cpu(plan("ddpm", 4)).sample_requests(requests))


def test_given_step_noise_and_callback(model):
    chosen = plan("ddpm", 5)
    draws = np.random.default_rng(0).standard_normal((5, 3, 1, 8, 8)).astype(np.float32)
    seen, expected = [], []
    sampler = df.Sampler(model, chosen, device="cuda")
    call = {"seed": 1, "cond": LABELS, "step_noise": lambda i: draws[i]}
    got = sampler.sample(3, callback=lambda i, x: seen.append(x.copy_to_host(sampler.setup.device.stream)), **call)
    want = cpu(chosen).sample(3, callback=lambda i, x: expected.append(x.copy()), **call)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(sampler.sample(3, seed=1, cond=LABELS), cpu(chosen).sample(3, seed=1, cond=LABELS))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("solver", ["ddpm", "euler"])  # whose initial scales are 1 and not 1
def test_noise_of_the_host_and_of_the_device(model, dtype, solver):
    noise = np.random.default_rng(3).standard_normal((3, 1, 8, 8)).astype(dtype)
    sampler = df.Sampler(model, plan(solver, 4), device="cuda")
    call = {"seed": 1, "cond": LABELS}
    expected = cpu(plan(solver, 4)).sample(3, noise=noise, **call)
    np.testing.assert_array_equal(sampler.sample(3, noise=noise, **call), expected)
    there = on_device(noise)
    np.testing.assert_array_equal(sampler.sample(3, noise=there, batch_size=2, **call), expected)
    np.testing.assert_array_equal(there.copy_to_host(), noise)


def test_conditioning_of_the_device_is_read_there(model, there, monkeypatch):
    chosen, call = plan("ddpm", 4), {"seed": 1, "negative_cond": {"label": 10}}
    sampler = df.Sampler(model, chosen, device="cuda", guidance_scale=1.5)
    expected = cpu(chosen, guidance_scale=1.5).sample(3, cond=LABELS, **call)
    np.testing.assert_array_equal(sampler.sample(3, cond=LABELS, **call), expected)
    label = on_device(LABELS["label"])
    copied, copy = [], device_array.DeviceArray.copy_from

    def counted(self, other, stream=0):
        copied.append(other.memory.address)
        return copy(self, other, stream)

    def downloaded(self, stream=0):
        assert self.dtype == np.float32, "conditioning was read on the host"
        return download(self, stream)

    download = device_array.DeviceArray.copy_to_host
    monkeypatch.setattr(device_array.DeviceArray, "copy_from", counted)
    monkeypatch.setattr(device_array.DeviceArray, "copy_to_host", downloaded)
    np.testing.assert_array_equal(sampler.sample(3, cond={"label": label}, batch_size=2, **call), expected)
    assert copied == [label.memory.address, label[2:].memory.address]  # into the static memory, and nowhere else
    one = on_device(np.array(2))
    got = sampler.sample(3, cond={"label": one}, **call)
    np.testing.assert_array_equal(got, sampler.sample(3, cond={"label": 2}, **call))
    assert copied[2:5] == [one.memory.address] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_step_noise_of_the_device_is_read_there(model, dtype, monkeypatch):
    chosen = plan("ddpm", 5)
    draws = np.random.default_rng(0).standard_normal((5, 3, 1, 8, 8)).astype(dtype)
    call = {"seed": 1, "cond": LABELS}
    expected = cpu(chosen).sample(3, step_noise=lambda i: draws[i], **call)
    there = [on_device(draw) for draw in draws]
    read, start = [], cuda.CudaKernel.bind

    def bind(self, rows, *, outputs, **buffers):
        read.extend(getattr(m, "memory", m).address for m in outputs)
        return start(self, rows, outputs=outputs, **buffers)

    monkeypatch.setattr(cuda.CudaKernel, "bind", bind)
    got = df.Sampler(model, chosen, device="cuda").sample(3, step_noise=lambda i: there[i], **call)
    np.testing.assert_array_equal(got, expected)
    noisy = [array for array, row in zip(there, chosen.rows, strict=True) if row.s]
    assert [at for at in read if at in {a.memory.address for a in there}] == [array.memory.address for array in noisy]


def test_step_noise_may_go_when_it_was_given(model):
    # Memory that is freed and used anew for the next row.
    chosen = plan("ddpm", 5)
    draws = np.random.default_rng(0).standard_normal((5, 3, 1, 8, 8)).astype(np.float32)
    reused = device_array.DeviceArray(draws.shape[1:])

    def step_noise(i):
        reused.copy_from_host(draws[i], 640)  # on another stream, which nobody orders
        return reused

    got = df.Sampler(model, chosen, device="cuda").sample(3, seed=1, cond=LABELS, step_noise=step_noise)
    np.testing.assert_array_equal(got, cpu(chosen).sample(3, seed=1, cond=LABELS, step_noise=lambda i: draws[i]))


def test_requests_bring_arrays_of_the_device(model):
    noise = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)

    def requests(place):
        return [
            df.Request(plan=plan("euler", 4), noise=place(noise[0]), cond={"label": place(np.array(3))}),
            df.Request(seed=5, cond={"label": 4}),
            df.Request(seed=6, noise=place(noise[1].astype(np.float16)), cond={"label": place(np.array(8))}, guidance_scale=2.0,
                       negative_cond={"label": place(np.array(10))}),
            df.Request(seed=7, noise=noise[2], cond={"label": 1}),
        ]  # fmt: skip

    got = df.Sampler(model, plan("ddpm", 4), device="cuda").sample_requests(requests(on_device))
    np.testing.assert_array_equal(got, cpu(plan("ddpm", 4)).sample_requests(requests(lambda array: array)))


def test_a_scale_for_each_sample_with_arrays_of_the_device(there):
    digits = df.load(df.load("digits").path)
    noise, label = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32), np.array([3, 4, 5])
    call = {"guidance_scale": [1.0, 2.0, 3.0], "device": "cuda"}
    expected = df.sample(digits, 3, 4, noise=noise, cond={"label": label}, **call)
    noise, label = on_device(noise), on_device(label)
    got = df.sample(digits, 3, 4, noise=noise, cond={"label": label}, **call)
    np.testing.assert_array_equal(got, expected)


def test_conditioning_that_does_not_fit_is_refused_before_anything_runs(model, there, core):
    sampler = df.Sampler(model, plan(), device="cuda")
    for shape, dtype, device, error, said in (
        ((2,), np.int64, 0, ArgumentError, r"cond\['label'\] has shape \(2,\); the model takes \(\) .* or one per sample, \(3,\)"),
        ((3,), np.int32, 0, ArgumentTypeError, r"cond\['label'\] is int32 on the device; the model takes int64: convert it there"),
        ((3,), np.int64, 1, ArgumentError, r"cond\['label'\] is on cuda:1; the model is sampled on cuda:0"),
    ):
        core.pretend(13000, 0, 2, 90)
        try:
            with pytest.raises(error, match=said):
                sampler.sample(3, seed=1, cond={"label": device_array.DeviceArray(shape, dtype, device)})
        finally:
            core.pretend(13000, 0, 1, 90)
    assert there.calls == 0


def test_noise_that_does_not_fit_is_refused_before_anything_runs(model, there):
    sampler = df.Sampler(model, plan(), device="cuda")
    for shape, dtype, error, said in (
        ((2, 1, 8, 8), np.float32, ArgumentError, r"noise has shape \(2, 1, 8, 8\); it must be \(3, 1, 8, 8\)"),
        ((3, 1, 8, 8), np.float64, ArgumentTypeError, "noise has dtype float64; on a device it must be float32"),
        ((3, 1, 8, 8), np.int32, ArgumentTypeError, "noise has dtype int32"),
    ):
        with pytest.raises(error, match=said):
            sampler.sample(3, noise=device_array.DeviceArray(shape, dtype), cond=LABELS)
    with pytest.raises(ArgumentError, match="noise is a DeviceArray on a CUDA device, and is read on the host here"):
        cpu(plan()).sample(3, noise=device_array.DeviceArray((3, 1, 8, 8)), cond=LABELS)
    assert there.calls == 0


def test_nan_is_reported_with_row_and_sample(model, there):
    def broken(x, t, label):
        out = network(x, t, label)
        out[(label == 2) & (np.asarray(t) < 400)] = np.nan
        return out

    there.function = broken
    chosen = plan("ddim", 8)
    with pytest.raises(NonFiniteError) as got:
        df.Sampler(model, chosen, device="cuda").sample(3, seed=1, cond=LABELS)
    with pytest.raises(NonFiniteError) as expected:
        df.Sampler(broken, chosen, shape=(1, 8, 8)).sample(3, seed=1, cond=LABELS)
    assert (got.value.row, got.value.samples, str(got.value)) == (expected.value.row, (1,), str(expected.value))


def test_a_device_that_is_not_there(model):
    with pytest.raises(UnavailableError, match="there is no cuda:63; this machine has 1, from cuda:0"):
        df.sample(model, 1, 2, device="cuda:63")


def test_users_of_one_device_take_turns(model):
    sampler = df.Sampler(model, PLANS["ddpm, clipped"], device="cuda")
    results = {}

    def draw(seed):
        results[seed] = sampler.sample(2, seed=seed, cond={"label": seed})

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, got in results.items():
        np.testing.assert_array_equal(got, cpu(PLANS["ddpm, clipped"]).sample(2, seed=seed, cond={"label": seed}))
    assert len(results) == 4


def test_sample_by_name_with_what_the_model_knows(there):
    options = {"seed": 7, "solver": "dpmpp_2m_sde", "cond": {"label": 3}, "guidance_scale": 1.5}
    digits = df.load("digits")
    got = df.sample(digits, 2, 6, device="cuda", **options)
    expected = df.sample(
        network,
        2,
        6,
        shape=digits.shape,
        schedule=digits.schedule,
        prediction_type=digits.prediction_type,
        clip=digits.clip,
        negative_cond={"label": 10},
        **options,
    )
    np.testing.assert_array_equal(got, expected)
