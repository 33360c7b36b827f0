"""A device on the CPU that records what is captured and refuses what a real one refuses, and a kernel for it.

Work is recorded, not done, while a graph is captured, and done from the record when it is replayed: what Python would evaluate anew
is not. The kernel is the CPU's behind the interface of a device kernel; its own state stands for device memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.devices.base import Backend
from diffuse_fast.kernels import get_kernel
from diffuse_fast.kernels.rows import pack


class There:
    """An array of another library on the device, which nothing reads on the host."""

    def __init__(self, values):
        self.there = values

    def __dlpack_device__(self):
        return 2, 0

    def __array__(self, *_, **__):
        raise AssertionError("read on the host")


class MockGraph:
    def __init__(self, device, tape):
        self.device, self.tape, self.replays = device, tape, 0

    def replay(self):
        assert self.device.tape is None, "a replay while capturing"
        self.replays += 1
        self.device.events.append("replay")
        for operation in self.tape:
            operation()


class MockDevice:
    name, kernels, captures = "cuda:0", ("mock",), True

    def __init__(self):
        self.events: list[str] = []
        self.graphs: list[MockGraph] = []
        self.tape = None
        self.scopes = 0
        self.read: list[np.ndarray] = []  # what was copied into its memory, as it was given

    @property
    def stream(self):
        return 7 if self.tape is None else 8

    @contextmanager
    def scope(self):
        self.scopes += 1
        yield
        self.scopes -= 1

    def enqueue(self, operation):
        assert self.scopes, "work outside of the device's scope"
        if self.tape is None:
            operation()
        else:
            self.tape.append(operation)

    def _refused(self, event):
        assert self.tape is None, f"{event} while capturing"
        self.events.append(event)

    def alloc(self, shape, dtype=np.float32):
        self._refused("alloc")
        return np.zeros(shape, dtype)

    def upload(self, array, into):
        self._refused("upload")
        self.read.append(array)
        np.copyto(into, array, casting="no")

    def part(self, array, i):
        return array[i]

    def download(self, array):
        self._refused("sync")
        return array.copy()

    def own(self, array, as_tensor):
        return self.download(array)

    def take(self, name, value):
        self._refused("take")
        return value.there

    take_noise = take

    def stack(self, arrays):
        self._refused("stack")
        self.read += arrays
        return np.stack(arrays)

    def start(self, noise, scale, into):
        self._refused("upload")
        self.read.append(noise)
        np.multiply(noise, np.float32(scale), out=into)

    def warm_up(self, run):
        self._refused("warm up")
        return run()

    def pool(self):
        return object()

    def capture(self, run, pool):
        self._refused("capture")
        self.tape = []
        try:
            run()
            graph = MockGraph(self, self.tape)
        finally:
            self.tape = None
        self.graphs.append(graph)
        return graph

    def synchronize(self):
        self._refused("sync")


class MockNetwork:
    """A NumPy function of elements; ``weights`` stands for where a module's weights lie."""

    name, best_graph = "mock", "tick"

    def __init__(self, function):
        self.function, self.weights, self.calls = function, 0, []

    def fingerprint(self):
        return self.weights

    def bind_device(self, memory, batch, shape, cond, output_shape=None):
        return MockCall(self, memory, batch, shape, cond, tuple(output_shape or shape))


class MockCall:
    captures_itself = False

    def __init__(self, network, memory, batch, shape, cond, output_shape):
        self.network, self.memory, self.output_shape = network, memory, output_shape
        self.x, self.t = memory.alloc((batch, *shape)), memory.alloc((batch,))
        self.cond = [{name: memory.alloc(v.shape, v.dtype) for name, v in c.items()} for c in cond]
        self.condition(cond)

    def condition(self, cond):
        for arrays, given in zip(self.cond, cond, strict=True):
            for name, array in arrays.items():
                self.memory.upload(given[name], array)

    def check(self, t):
        pass

    def __call__(self, evaluations, integer_times):
        # The graph's own memory, of another address in every capture.
        outputs = [np.full((len(self.x), *self.output_shape), np.nan, np.float32) for _ in range(evaluations)]

        def run():
            self.network.calls.append((evaluations, self.t.copy()))
            for output, cond in zip(outputs, self.cond, strict=False):
                output[...] = self.network.function(self.x, self.t.astype(np.int64 if integer_times else np.float32), **cond)

        self.memory.enqueue(run)
        return outputs


class MockKernel:
    name, device = "mock", "cuda"

    def __init__(self, device):
        self.on = device

    def bind(self, rows, *, stream, **buffers):
        assert stream == self.on.stream
        return MockStep(self.on, rows, **buffers)

    def normals(self, out, *, cuda_stream, **where):
        assert cuda_stream == self.on.stream
        self.on.enqueue(lambda: get_kernel().normals(out, **where))


class MockStep:
    def __init__(self, on, rows, *, x, seeds, times, t, capacity, outputs, registers, **buffers):
        on._refused("alloc")
        self._on, self._t, self.capacity = on, t, capacity
        self._bound = {"x": x, "registers": registers, **buffers}
        self._outputs = outputs
        self.seed(seeds, buffers.pop("indices"), stream=on.stream)
        self._bound.pop("indices")
        self.load(rows, times, stream=on.stream)
        self._numbers = np.full(len(seeds), -1)

    def load(self, rows, times, *, stream):
        table = rows if isinstance(rows, np.ndarray) else pack(rows)
        assert len(table) == len(times) <= self.capacity and stream == self._on.stream
        self._on._refused("load")
        self._table, self._times = table, np.asarray(times, np.float32)
        self.variant = bool(table["s"].any()), bool(table["write"].max() >= 0)

    def seed(self, seeds, indices, *, stream):
        self._on._refused("seed")
        self._seeds, self._indices = np.array(seeds, np.uint64), np.array(indices, np.uint32)

    def place(self, rows, noise_rows, *, stream):
        self._on._refused("place")
        assert stream == self._on.stream
        self._numbers, self._noise_rows = np.array(rows, np.int64), np.array(noise_rows).astype(np.uint32)
        self._bad = np.full(len(rows), -1, np.int32)
        for i in np.flatnonzero(self._numbers >= 0):
            self._t[i] = self._times[self._numbers[i]]

    def launch(self, *, stream, outputs=None):
        assert stream == self._on.stream, "not the stream that is current"
        variant, outputs = self.variant, self._outputs if outputs is None else outputs
        assert [o.shape for o in outputs] == [o.shape for o in self._outputs]

        def run():
            assert self.variant == variant, "captured for a table of another variant"
            at = np.where((self._numbers >= 0) & (self._numbers < len(self._table)), self._numbers, -1)
            if (at >= 0).any():
                step = get_kernel().bind(self._table, outputs=outputs, seeds=self._seeds, indices=self._indices, **self._bound)
                step.run_each(at, self._noise_rows)
                for i in step.bad_samples():
                    self._bad[i] = at[i] if self._bad[i] < 0 else self._bad[i]
            moved = self._numbers >= 0
            self._numbers[moved] += 1
            self._noise_rows[moved] += 1
            self._t[moved] = self._times[np.minimum(self._numbers[moved], len(self._times) - 1)]

        self._on.enqueue(run)

    def first_bad_rows(self, *, stream):
        self._on._refused("sync")
        return self._bad.copy()


@pytest.fixture
def there():
    return There


@pytest.fixture
def mocked(monkeypatch):
    """``mocked(function, plan, **options)``: a Sampler of a NumPy function on a mock device, with ``device`` and ``network``."""

    def make(function, plan, **options):
        device, net = MockDevice(), MockNetwork(function)
        with monkeypatch.context() as patch:
            patch.setattr("diffuse_fast.engine.setup.backend_for", lambda *_: Backend(device, net, MockKernel(device)))
            sampler = df.Sampler(function, plan, **options)
        return SimpleNamespace(sampler=sampler, device=device, network=net)

    return make


class TensorKernel(MockKernel):
    """The mock kernel for CPU tensors: the same memory as NumPy arrays, bfloat16 as its bits."""

    def __init__(self, device):
        super().__init__(device)
        device.enqueue, device._refused = lambda operation: operation(), lambda event: None

    def bind(self, rows, *, stream, x, out, outputs, registers, t, **rest):
        step = MockStep(
            self.on, rows, x=arrays(x), out=arrays(out), outputs=arrays(outputs), registers=arrays(registers), t=arrays(t), **rest
        )
        launch = step.launch
        step.launch = lambda *, stream, outputs=None: launch(stream=stream, outputs=arrays(outputs))
        return step

    def normals(self, out, **where):
        super().normals(arrays(out), **where)


def arrays(value):
    import torch

    if value is None:
        return None
    if isinstance(value, list):
        return [arrays(v) for v in value]
    return (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).detach().numpy()


@pytest.fixture
def tensor_kernel():
    return TensorKernel
