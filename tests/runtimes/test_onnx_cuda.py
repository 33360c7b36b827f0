"""onnxruntime on a device, by a stand-in for it: which options it is given, what it is bound to, and what is refused."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, NetworkError, UnavailableError
from diffuse_fast.runtimes.registry import device_network


class Array:
    """Device memory that only its address is known of."""

    made = 0

    def __init__(self, shape, dtype):
        Array.made += 1
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.__cuda_array_interface__ = {"data": (4096 * Array.made, False)}

    @property
    def address(self):
        return self.__cuda_array_interface__["data"][0]


class Memory:
    name = "cuda:1"

    def __init__(self):
        self.uploads = []

    def alloc(self, shape, dtype=np.float32):
        return Array(shape, dtype)

    def upload(self, host, into):
        assert host.shape == into.shape and host.dtype == into.dtype
        self.uploads.append((into.address, host.copy()))


class Binding:
    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, device, index, dtype, shape, address):
        self.inputs[name] = (device, index, np.dtype(dtype), shape, address)

    def bind_output(self, name, device, index, dtype, shape, address):
        self.outputs[name] = (device, index, np.dtype(dtype), shape, address)


class Options:
    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value

    add_run_config_entry = add_session_config_entry


@pytest.fixture
def ort(monkeypatch):
    """As if onnxruntime had CUDA and TensorRT; ``made`` are its sessions, ``starts`` the providers that start."""
    there = SimpleNamespace(made=[], starts=None, events=[], refuse=None)

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            if there.refuse:
                raise RuntimeError(there.refuse)
            self.options, self.providers, self.enable_fallback, self.runs = options, providers, enable_fallback, []
            there.made.append(self)
            there.events.append("session")

        def get_providers(self):
            return [name for name, _ in self.providers] if there.starts is None else there.starts

        def get_inputs(self):
            kinds = {"x": ("tensor(float)", ["B", 1, 8, 8]), "t": ("tensor(int64)", ["B"]), "label": ("tensor(int64)", ["B"])}
            return [SimpleNamespace(name=name, type=kind, shape=shape) for name, (kind, shape) in kinds.items()]

        def io_binding(self):
            return Binding()

        def run_with_iobinding(self, binding, options):
            self.runs.append((binding, options))

    module = types.ModuleType("onnxruntime")
    module.__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)
    vars(module).update(
        __version__="9.9",
        SessionOptions=Options,
        RunOptions=Options,
        InferenceSession=Session,
        get_available_providers=lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: there.events.append("preload"),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    there.module = module
    return there


@pytest.fixture
def model():
    return df.load(df.load("digits").path)  # an object of its own, and so no session of another test


def made(model, runtime="onnx", graph="none"):
    return device_network(model, runtime, index=1, stream=0xABC, graph=graph)


def bound(network, batch=3, evaluations=2):
    cond = [{"label": np.arange(batch) + j} for j in range(evaluations)]
    memory = Memory()
    return network.bind_device(memory, batch, (1, 8, 8), cond), memory


def test_the_session_is_on_the_device_and_stream_or_nowhere(ort, model):
    made(model)
    (session,) = ort.made
    options = {"device_id": "1", "user_compute_stream": str(0xABC), "enable_cuda_graph": "0"}
    assert session.providers == [("CUDAExecutionProvider", options)]
    assert session.options.entries == {"session.disable_cpu_ep_fallback": "1"}
    assert session.enable_fallback == 0
    assert ort.events == ["preload", "session"]
    made(model)
    assert len(ort.made) == 1  # one session for a model, device and stream
    made(model, graph="tick")
    assert ort.made[1].providers[0][1]["enable_cuda_graph"] == "1"


def test_tensorrt_goes_before_cuda(ort, model):
    made(model, "tensorrt", "tick")
    (name, options), (second, _) = ort.made[0].providers
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options == {"device_id": "1", "user_compute_stream": str(0xABC), "trt_cuda_graph_enable": "1"}


def test_a_provider_that_is_not_built_in_is_refused(ort, model):
    ort.module.get_available_providers = lambda: ["CPUExecutionProvider"]
    with pytest.raises(UnavailableError, match=r"9.9 has no CUDAExecutionProvider \(it has CPUExecutionProvider\)"):
        made(model)


def test_a_provider_that_does_not_start_is_refused(ort, model):
    ort.starts = ["CPUExecutionProvider"]  # without an error: this is what a machine without a GPU does
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider does not start on cuda:1"):
        made(model)


def test_a_network_that_would_run_partly_on_the_cpu_is_refused(ort, model):
    ort.refuse = "This session contains graph nodes that are assigned to the default CPU EP, but fallback has been disabled"
    with pytest.raises(UnavailableError, match="does not run digits on cuda:1: This session contains graph nodes"):
        made(model)


def test_everything_is_bound_once_on_the_device(ort, model):
    call, memory = bound(made(model))
    first, second = call(2, True)
    (one, _), (two, options) = ort.made[0].runs
    assert one.inputs["x"] == two.inputs["x"] == ("cuda", 1, np.float32, (3, 1, 8, 8), call.x.address)
    assert one.inputs["t"] == two.inputs["t"] == ("cuda", 1, np.int64, (3,), call.t.address)
    assert [b.outputs["output"] for b in (one, two)] == [
        ("cuda", 1, np.float32, (3, 1, 8, 8), output.address) for output in (first, second)
    ]
    labels = [b.inputs["label"][-1] for b in (one, two)]
    assert len({*labels, first.address, second.address, call.x.address}) == 5
    assert [(at, list(value)) for at, value in memory.uploads] == [(labels[0], [0, 1, 2]), (labels[1], [1, 2, 3])]
    assert options.entries == {"disable_synchronize_execution_providers": "1"}
    call(1, True)
    assert ort.made[0].runs[2][0] is one and len(ort.made[0].runs) == 3


def test_conditioning_that_lies_on_the_device_is_copied_there(ort, model):
    class Seen(Memory):
        def upload(self, array, into):
            self.uploads.append((into.address, array))

    label, memory = Array((3,), np.int64), Seen()
    call = made(model).bind_device(memory, 3, (1, 8, 8), [{"label": label}])
    call.condition([{"label": (other := Array((3,), np.int64))}])
    (at, first), (again, second) = memory.uploads
    assert first is label and second is other and at == again  # nothing read it before
    with pytest.raises(ArgumentTypeError, match=r"cond\['label'\] has the dtype int32; the network takes int64: convert it on the"):
        made(model).bind_device(Memory(), 3, (1, 8, 8), [{"label": Array((3,), np.int32)}])
    with pytest.raises(ArgumentError, match="its first dimension must be the batch, 2"):
        made(model).bind_device(Memory(), 2, (1, 8, 8), [{"label": label}])


def test_each_binding_has_a_graph_of_its_own(ort, model):
    network = made(model, graph="tick")
    for _ in range(2):
        bound(network)[0](2, True)
    ids = [options.entries["gpu_graph_id"] for _, options in ort.made[0].runs]
    assert len(set(ids)) == 4


def test_what_does_not_fit_is_refused(ort, model):
    network = made(model)
    with pytest.raises(ArgumentError, match="label"):
        network.bind_device(Memory(), 2, (1, 8, 8), [{}])
    call, _ = bound(network)
    with pytest.raises(ArgumentError, match="not an integer"):
        call.check(10.5)
    ort.made[0].run_with_iobinding = lambda *_: 1 / 0
    with pytest.raises(NetworkError, match="ZeroDivisionError"):
        call(1, True)


def test_a_runtime_of_the_cpu_is_refused(model):
    with pytest.raises(ArgumentError, match=r"'openvino' does not run on a CUDA device; these do: onnx, tensorrt"):
        made(model, "openvino")


def test_the_real_one_without_a_gpu_is_refused(model):
    real = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in real.get_available_providers():
        pytest.skip("this onnxruntime is built with CUDA")
    with pytest.raises(UnavailableError, match="has no CUDAExecutionProvider"):
        made(model)
