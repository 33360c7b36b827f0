"""What a bound call promises, held for every runtime; then what each has of its own."""

from __future__ import annotations

import functools
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import machine
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, NetworkError, UnavailableError
from diffuse_fast.runtimes import network

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

SHAPE = (2, 3)


class Small(torch.nn.Module):
    """What tests/conftest.py's small file computes."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(30.0).reshape(5, 2, 3) / 10)

    def forward(self, x, t, label):
        return x * (1 + t / 1000).to(x.dtype)[:, None, None] + self.table[label]


def session(path, **options):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"], **options)


# Every runtime, given the same network.
MAKERS = {
    "native": lambda path: network(df.load(path), "native", threads=1),
    "native, two threads": lambda path: network(df.load(path), "native", threads=2),
    "onnx file": lambda path: network(df.load(path), "onnx"),
    "onnx file, one thread": lambda path: network(df.load(path), "onnx", threads=1),
    "openvino": lambda path: network(df.load(path), "openvino", threads=1),
    "openvino, two threads": lambda path: network(df.load(path), "openvino", threads=2),
    "onnx session": lambda path: network(session(path)),
    "torch": lambda path: network(Small().eval()),
    "torch, diffusers' output": lambda path: network(Sampled(Small())),
    "callable": lambda path: network(lambda x, t, label: Small()(*map(torch.from_numpy, (x, t, label))).detach().numpy()),
    "callable, tensors": lambda path: network(lambda x, t, label: Small()(*map(torch.from_numpy, (x, t, label)))),
    "callable, .sample": lambda path: network(
        lambda x, t, label: SimpleNamespace(sample=x * (1 + t / 1000)[:, None, None] + np.arange(30).reshape(5, 2, 3)[label] / 10)
    ),
}


class Sampled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t, label):
        return SimpleNamespace(sample=self.inner(x, t, label))


@pytest.fixture(params=MAKERS)
def net(request, small):
    return MAKERS[request.param](small())


def inputs(batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, *SHAPE)).astype(np.float32), {"label": rng.integers(0, 5, batch)}


# float32 rounding of one product and one sum of numbers below 8.
CLOSE = {"rtol": 0, "atol": 2e-6}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_runtimes_agree_with_the_function(net, small_oracle, batch):
    x, cond = inputs(batch)
    call = net.bind(batch, SHAPE, cond)
    for t in (999.0, 500.0, 0.0):
        call.x[...] = x
        got = call(t)
        assert got is call.output
        np.testing.assert_allclose(got, small_oracle(x, np.full(batch, t), cond["label"]), **CLOSE)
        np.testing.assert_array_equal(call.x, x)  # a call leaves the state alone


def test_buffers(net):
    x, cond = inputs(3)
    call = net.bind(3, SHAPE, cond)
    call.x[...] = x
    state, output = call.x, call.output
    assert state.shape == output.shape == (3, *SHAPE)
    assert state.dtype == output.dtype == np.float32
    assert state.flags.c_contiguous and output.flags.c_contiguous and state.flags.writeable
    assert state.ctypes.data % 64 == 0
    first = call(10.0).copy()
    state *= 2  # the step updates the state in place
    second = call(10.0)
    assert call.x is state and call.output is output is second
    assert not np.shares_memory(state, output)
    assert np.abs(first - second).max() > 0.1


def test_calls_do_not_share(net):
    xs, cond = zip(*(inputs(2, seed) for seed in range(4)), strict=True)
    calls = [net.bind(2, SHAPE, c) for c in cond]
    for call, x in zip(calls, xs, strict=True):
        call.x[...] = x
    alone = [call(7.0).copy() for call in calls]

    def run(i):
        for _ in range(50):
            np.testing.assert_array_equal(calls[i](7.0), alone[i])
        done.append(i)

    done: list[int] = []
    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]


def test_conditioning_is_copied(net):
    x, cond = inputs(2)
    call = net.bind(2, SHAPE, cond)
    call.x[...] = x
    before = call(3.0).copy()
    cond["label"][...] = 0
    np.testing.assert_array_equal(call(3.0), before)


def test_conditioning_need_not_be_contiguous(net, small_oracle):
    x, _ = inputs(3)
    labels = np.array([4, 9, 2, 9, 0, 9])[::2]
    call = net.bind(3, SHAPE, {"label": labels})
    call.x[...] = x
    np.testing.assert_allclose(call(0.0), small_oracle(x, np.zeros(3), [4, 2, 0]), **CLOSE)


@pytest.mark.parametrize("label", [np.zeros(2, int), np.zeros((), int), np.zeros((0,), int)])
def test_conditioning_of_another_batch(net, label):
    with pytest.raises(ArgumentError, match=r"'label'.*batch, 3"):
        net.bind(3, SHAPE, {"label": label})


def test_conditioning_that_is_not_numeric_is_refused(net):
    with pytest.raises(ArgumentTypeError, match="'label'"):
        net.bind(2, SHAPE, {"label": np.array(["a", "b"])})


def test_a_failing_network_is_a_typed_error(net):
    if net.name == "openvino":
        pytest.skip("its Gather does not look at the index; the engine refuses a label that no class has")
    with pytest.raises(NetworkError, match=r"time 3\.0|conditioning"):
        net.bind(2, SHAPE, {"label": np.array([0, 99])})(3.0)  # there are five classes


# ---- onnx ---------------------------------------------------------------------------------------


def test_onnx_names_missing_and_unknown_conditioning(small):
    net = network(df.load(small()), "onnx")
    with pytest.raises(ArgumentError, match="needs the conditioning input 'label'"):
        net.bind(2, SHAPE, {})
    with pytest.raises(ArgumentError, match=r"'lable'.*Did you mean 'label'"):
        net.bind(2, SHAPE, {"lable": np.zeros(2, int)})
    with pytest.raises(ArgumentTypeError, match="float64"):
        net.bind(2, SHAPE, {"label": np.zeros(2)})
    with pytest.raises(ArgumentError, match="'label'"):
        net.bind(2, SHAPE, {"label": np.zeros((2, 1), int)})
    with pytest.raises(ArgumentError, match="shape"):
        net.bind(2, (2, 4), {"label": np.zeros(2, int)})


def test_onnx_needs_integer_times_for_an_integer_input(small):
    call = network(df.load(small()), "onnx").bind(1, SHAPE, {"label": np.zeros(1, int)})
    with pytest.raises(ArgumentError, match=r"2\.5 is not an integer"):
        call(2.5)


def test_onnx_float_times_and_one_time_for_the_batch(small, tmp_path):
    onnx = pytest.importorskip("onnx")
    for dims in (["B"], [1], []):
        values = [
            onnx.helper.make_tensor_value_info("sample", 1, ["B", 2]),
            onnx.helper.make_tensor_value_info("timestep", 1, dims),
            onnx.helper.make_tensor_value_info("out", 1, ["B", 2]),
        ]
        axes = onnx.numpy_helper.from_array(np.array([-1], np.int64), "axes")
        node = onnx.helper.make_node
        nodes = [node("Reshape", ["timestep", "column"], ["tc"]), node("Mul", ["sample", "tc"], ["out"])]
        column = onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "column")
        graph = onnx.helper.make_graph(nodes, "g", values[:2], values[2:], [axes, column])
        path = tmp_path / "m.onnx"
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
        path.write_bytes(model.SerializeToString())
        call = network(df.load(path, {"convention": "sigma"}), "onnx").bind(3, (2,), {})
        call.x[...] = 1
        np.testing.assert_array_equal(call(2.5), np.full((3, 2), 2.5))


def test_onnx_shares_one_session_as_long_as_the_model_lives(small):
    path = small()
    model = df.load(path)
    made = functools.partial(network, model, "onnx")
    assert made().session is made().session
    assert made(threads=1).session is not made(threads=2).session
    assert made(threads=machine.physical_cores()).session is made().session
    assert made(threads=1).session.get_session_options().intra_op_num_threads == 1
    assert network(df.load(path), "onnx").session is not made().session


def test_onnx_keeps_few_sessions_and_those_in_use(small, monkeypatch):
    """Each number of threads ever asked for kept its copy of the weights, and its threads."""
    model, made = df.load(small()), []
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda *a, **options: made.append(real(*a, **options)) or made[-1])

    def used(threads):
        call = network(model, "onnx", threads=threads).bind(2, SHAPE, {"label": np.zeros(2, int)})
        call(1.0)
        return call

    held = used(1)
    for threads in (2, 3, 2, 4, 5, 6):
        used(threads)
    alive, made[:] = [weakref.ref(session) for session in made], []
    assert [session() is not None for session in alive] == [True, True, False, True, True, True]
    assert held(1.0) is held.output
    used(2)
    assert not made  # asked for again in time
    del held
    assert alive[0]() is None


def test_onnx_external_data(small, small_oracle):
    onnx = pytest.importorskip("onnx")
    path = small()
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=100)  # the table
    x, cond = inputs(2)
    call = network(df.load(path), "onnx").bind(2, SHAPE, cond)
    call.x[...] = x
    np.testing.assert_allclose(call(30.0), small_oracle(x, np.full(2, 30), cond["label"]), **CLOSE)


def test_onnx_a_file_the_runtime_refuses(small):
    path = small()
    path.write_bytes(path.read_bytes().replace(b"Gather", b"Gathxx"))
    with pytest.raises(ArtifactError, match="onnxruntime rejects"):
        network(df.load(path), "onnx")


def test_onnx_an_output_of_another_shape_than_declared(small):
    call = network(session(small())).bind(2, SHAPE, {"label": np.zeros(2, int)}, output_shape=(4, 3))
    with pytest.raises(NetworkError):
        call(1.0)


def test_onnx_options_of_a_session_that_exists(small):
    with pytest.raises(ArgumentError, match="threads"):
        network(session(small()), threads=2)


def test_onnx_in_a_forked_child(small, forked):
    code = """
network(model, threads=2)

def child():
    call = network(model, threads=2).bind(2, (2, 3), {"label": np.zeros(2, int)})
    return np.isfinite(call(1.0)).all()
"""
    forked(code, small())


def test_a_forked_child_destroys_no_session_of_its_parent(small, forked):
    """Its destructor takes a lock that a thread of the parent may have had: now and then a child stood still for ever."""
    code = """
import weakref
from diffuse_fast.runtimes import onnx
network(model, "onnx", threads=2)
session = weakref.ref(*onnx._sessions[model].values())

def child():
    del globals()["model"]
    return session() is not None
"""
    forked(code, small())


FORK_AFTER = """
made = network(model, "openvino", threads=2)
cond = {"label": np.zeros(2, int)}
bound = made.bind(2, (2, 3), cond)
want = bound(1.0).copy()

def told(call):
    try:
        call()
    except df.DiffuseFastError as error:
        return "fork" in str(error)
    return False

def anew():
    call = network(model, "openvino", threads=2).bind(2, (2, 3), cond)
    return (call(1.0) == want).all()

def child():
    return told(lambda: bound(1.0)) and told(lambda: made.bind(2, (2, 3), cond)) and anew()
"""


def test_what_a_forked_child_cannot_go_on_with(small, forked):
    """It waited for threads that it does not have. What is made in the child runs."""
    pytest.importorskip("openvino")
    forked(FORK_AFTER, small())


TORCH_FORK = """
import torch
torch.set_num_threads(2)
module = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 3, 3, padding=1)).eval()

class Net(torch.nn.Module):
    def forward(self, x, t):
        return module(x)

def made():
    return network(Net()).bind(8, (3, 64, 64), {})

bound = made()
want = bound(1.0).copy()

def told(call):
    try:
        call(1.0)
    except df.DiffuseFastError as error:
        return "forked" in str(error) and "torch.set_num_threads(1)" in str(error)
    return False

def child():
    if not (told(bound) and told(made())):
        return False
    torch.set_num_threads(1)
    return np.allclose(bound(1.0), want, atol=1e-5) and np.allclose(made()(1.0).shape, want.shape)
"""


def test_a_forked_child_gets_an_error_where_torch_would_hang(small, forked):
    """A call waited for ever for threads of the parent, on a network made before the fork or after it."""
    forked(TORCH_FORK, small())


# ---- torch --------------------------------------------------------------------------------------


def test_a_module_gets_a_copy_of_the_state_and_integer_times_as_int64():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x, t):
            seen.append((x.data_ptr() == call.x.ctypes.data, x.dtype, t.dtype, torch.is_inference_mode_enabled()))
            return x

    call = network(Spy()).bind(2, SHAPE, {})
    call(3.0), call(2.5)
    assert seen == [(False, torch.float32, torch.int64, True), (False, torch.float32, torch.float32, True)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_torch_runs_a_module_in_its_own_dtype(dtype):
    module = torch.nn.Linear(3, 3).to(dtype)

    class Timed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x, t, c):
            assert x.dtype == c.dtype == dtype
            return self.inner(x) + c

    c = np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)
    call = network(Timed()).bind(2, SHAPE, {"c": c})
    call.x[...] = x = inputs(2)[0]
    with torch.no_grad():
        expected = module(torch.from_numpy(x).to(dtype)) + torch.from_numpy(c).to(dtype)
    assert call(1.0).dtype == np.float32
    np.testing.assert_array_equal(call.output, expected.float().numpy())


def test_torch_respects_the_mode():
    class Mode(torch.nn.Module):
        def forward(self, x, t):
            return x * (2 if self.training else 3)

    for module, factor in ((Mode().train(), 2), (Mode().eval(), 3)):
        call = network(module).bind(1, SHAPE, {})
        call.x[...] = 1
        assert call(0.0).max() == factor and module.training == (factor == 2)


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.1), torch.nn.BatchNorm1d(2)])
def test_torch_refuses_layers_that_would_draw_or_learn(layer):
    with pytest.raises(ArgumentError, match=r"training mode.*eval\(\)"):
        network(torch.nn.Sequential(layer).train())
    network(torch.nn.Sequential(layer).eval())


def test_torch_refuses_other_devices():
    with pytest.raises(UnavailableError, match="meta"):
        network(torch.nn.Linear(2, 2, device="meta"))


class Returns(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, t):
        return self.value(x)


@pytest.mark.parametrize(
    "value, says",
    [
        (lambda x: x[:1], r"shape \(1, 2, 3\).*\(2, 2, 3\)"),
        (lambda x: x.sum(), "shape"),
        (lambda x: (x,), "tuple"),
        (lambda x: None, "NoneType"),
        (lambda x: x.astype(int) if isinstance(x, np.ndarray) else x.long(), "int64"),
        (lambda x: x + 1j, "complex"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_outputs_that_are_none(value, says):
    for net in (network(Returns(value)), network(lambda x, t: value(x))):
        with pytest.raises(NetworkError, match=says):
            net.bind(2, SHAPE, {})(1.0)


def test_a_learned_variance_doubles_the_channels():
    for net in (network(Returns(lambda x: torch.cat([x, 2 * x], 1))), network(lambda x, t: np.concatenate([x, 2 * x], 1))):
        call = net.bind(2, SHAPE, {}, output_shape=(4, 3))
        call.x[...] = 1
        assert call(0.0).shape == (2, 4, 3) and call.output[:, 2:].min() == 2


# ---- times and results of modules and callables --------------------------------------------------


@pytest.mark.parametrize("as_module", [True, False])
def test_time_dtypes(as_module):
    seen = []

    def look(x, t):
        seen.append((str(t.dtype).removeprefix("torch."), tuple(t.shape), t.tolist()))
        return x

    class Look(torch.nn.Module):
        def forward(self, x, t):
            return look(x, t)

    model = Look() if as_module else look
    network(model).bind(2, SHAPE, {})(4.0)
    network(model).bind(2, SHAPE, {})(4.5)
    network(model, float_times=True).bind(2, SHAPE, {})(4.0)
    assert [s[0] for s in seen] == ["int64", "float32", "float32"]
    assert all(s[1] == (2,) for s in seen) and [s[2][0] for s in seen] == [4, 4.5, 4.0]


def test_a_callable_may_return_float64_half_or_bfloat16():
    for convert in (
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: torch.from_numpy(x).bfloat16(),
        lambda x: torch.from_numpy(x).requires_grad_(),
    ):
        call = network(lambda x, t, convert=convert: convert(x)).bind(2, SHAPE, {})
        call.x[...] = 0.5
        np.testing.assert_array_equal(call(0.0), np.full((2, *SHAPE), 0.5, np.float32))


def test_our_own_errors_pass_through():
    def refuse(x, t):
        raise ArgumentError("mine")

    with pytest.raises(ArgumentError, match=r"^mine$"):
        network(refuse).bind(1, SHAPE, {})(0.0)
