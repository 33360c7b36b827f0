"""onnxruntime on the CPU. Inputs and output are bound to NumPy's memory once; a call sets the time and runs."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from .. import machine
from ..errors import ArgumentError, ArtifactError, MissingDependencyError, install_hint
from ..model import Model
from ..rewrites import passes
from .base import MemoryCall, aligned, cast_cond, check_names, copied_cond
from .fork_safety import forget_in_child

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}

# Sessions kept per model: each holds the weights and has its own threads. Sessions of bound calls live as long as the calls.
_KEPT = 4

# By model, then by number of threads and precision; least recently used first.
_sessions: weakref.WeakKeyDictionary[Model, OrderedDict[tuple[int, str], Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forget() -> None:
    """Reset the caches in a forked child."""
    global _sessions, _lock
    _sessions, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forget_in_child(lambda: [list(kept.values()) for kept in _sessions.values()], _forget)


def network(model: Any, *, threads: int | None = None, precision: str = "float32") -> OnnxNetwork:
    """Make a network from a ``df.Model`` or an ``InferenceSession``.

    The inputs of a session are found by name: the sample is ``x`` or ``sample``, or else the first input; the time is ``t`` or
    ``timestep``, or else the next; the others are conditioning. Its first output is the prediction.
    """
    if isinstance(model, Model):
        # By default onnxruntime uses all cores of the machine, also those that this process may not run on.
        session = _session(model, machine.physical_cores() if threads is None else threads, precision)
        return OnnxNetwork(session, model.input, model.time.input, model.output, model.output_shape)
    if threads is not None:
        raise ArgumentError("threads cannot be set on a session that exists; set it in its SessionOptions.")
    names = [i.name for i in model.get_inputs()]
    if len(names) < 2:
        raise ArgumentError(f"the session has the inputs {names}; a diffusion network takes a sample and a time.")
    sample = next((n for n in ("x", "sample") if n in names), names[0])
    others = [n for n in names if n != sample]
    time = next((n for n in ("t", "timestep") if n in others), others[0])
    return OnnxNetwork(model, sample, time, model.get_outputs()[0].name, None)


def _session(model: Model, threads: int, precision: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"the runtime 'onnx' cannot import onnxruntime ({error}): {install_hint('cpu')}") from None
    with _lock:
        sessions = _sessions.setdefault(model, OrderedDict())
        key = threads, precision
        if key not in sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only: a user cannot act on its warnings
            options.intra_op_num_threads = threads
            # Without VNNI, products of int8 and uint8 saturate at 16 bits. With this option both are uint8, which does not.
            options.add_session_config_entry("session.x64quantprecision", "1")
            changed = passes.rewritten(model, "onnxruntime", precision)
            try:
                sessions[key] = onnxruntime.InferenceSession(
                    os.fspath(model.path) if changed is None else changed, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise ArtifactError(f"onnxruntime rejects {str(model.path)!r}: {str(error)[:1000]}") from None
        sessions.move_to_end(key)
        while len(sessions) > _KEPT:
            sessions.popitem(last=False)
        return sessions[key]


class OnnxNetwork:
    """A session and the names of its inputs and output."""

    name = "onnx"

    def __init__(self, session: Any, sample: str, time: str, output: str, output_shape: tuple[int, ...] | None):
        self.session = session
        self._sample, self._time, self._output, self._output_shape = sample, time, output, output_shape
        self._inputs = {i.name: i for i in session.get_inputs()}
        self._dtypes = {name: input_dtype(value) for name, value in self._inputs.items()}
        self._conditioning = [name for name in self._inputs if name not in (sample, time)]
        for name in (sample, output):
            kind = next(v.type for v in (*session.get_inputs(), *session.get_outputs()) if v.name == name)
            if kind != "tensor(float)":
                raise ArgumentError(f"the network's {name!r} is a {kind}; it must be tensor(float).")

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> OnnxCall:
        check_names(cond, self._conditioning)
        given = copied_cond(cond, batch)
        inputs = {self._sample: aligned((batch, *shape))}
        time = self._inputs[self._time]
        # Most networks take one time per sample; some take one for the batch, as a scalar or with shape [1].
        per_sample = len(time.shape) == 1 and time.shape[0] != 1
        inputs[self._time] = aligned((batch,) if per_sample else (1,) * len(time.shape), self._dtypes[self._time])
        for name, array in given.items():
            inputs[name] = cast_cond(name, array, self._dtypes[name])
        for name, array in inputs.items():
            dims = self._inputs[name].shape
            if len(dims) != array.ndim or any(isinstance(d, int) and d != n for d, n in zip(dims, array.shape, strict=True)):
                what = "shape" if name == self._sample else f"cond[{name!r}]"
                raise ArgumentError(f"{what}: the network's input {name!r} has the shape {dims}, but {array.shape} was given.")
        return OnnxCall(
            self.session,
            inputs,
            self._sample,
            self._time,
            self._output,
            aligned((batch, *(output_shape or self._output_shape or shape))),
        )


def input_dtype(value: Any) -> str:
    """Return the NumPy dtype of a network's input."""
    if value.type not in _DTYPES:
        raise ArgumentError(f"the network's input {value.name!r} is a {value.type}, which is not supported.")
    return _DTYPES[value.type]


class OnnxCall(MemoryCall):
    """A session bound to the memory of the inputs and the output."""

    def __init__(self, session: Any, inputs: dict[str, np.ndarray], sample: str, time: str, output: str, into: np.ndarray) -> None:
        super().__init__(inputs, sample, time, into)
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        binding.bind_output(output, "cpu", 0, np.float32, into.shape, into.ctypes.data)
        self._run = functools.partial(session.run_with_iobinding, binding)
