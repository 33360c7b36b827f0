"""OpenVINO. A bound call has a compiled model for its batch, whose tensors are NumPy's memory, set once.

Compiled for its batch: with a dynamic one the CPU plugin of 2026.4 takes more than twice as long (``docs/runtimes.md``).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Set
from typing import Any

import numpy as np

from .. import machine, telemetry
from ..artifact.file_identity import Files
from ..errors import ArgumentError, ArtifactError, DiffuseFastError, MissingDependencyError, UnavailableError, install_hint
from ..model import Model
from ..rewrites import passes
from ..rewrites.openvino_float32 import keep_exact
from ..rewrites.openvino_norms import norms_in_rows
from .base import Inputs, MemoryCall, aligned, check_output
from .fork_safety import Threaded, forget_in_child

_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # what the name of a precision is to the property INFERENCE_PRECISION_HINT

# Compiled models kept for a model: each holds its weights, in the layout of its batch.
_KEPT = 4


class _Compiled:
    """What OpenVINO made of one model: its graph, and the last compiled ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.graphs: dict[bool, Any] = {}  # by whether it is the one in int8
        self.compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


_models: weakref.WeakKeyDictionary[Model, _Compiled] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_core: Any = None


def _forget() -> None:
    """A forked child makes its own."""
    global _models, _lock, _core
    _models, _lock, _core = weakref.WeakKeyDictionary(), threading.Lock(), None


forget_in_child(lambda: (_core, [(*made.graphs.values(), *made.compiled.values()) for made in _models.values()]), _forget)


def network(
    model: Model, *, threads: int | None = None, time_dtype: str | None = None, precision: str = "float32", streams: int = 1
) -> OpenVINONetwork:
    """A ``df.Model`` as a network. ``streams`` calls run beside each other, each on ``threads`` threads.

    Raises:
        ArtifactError: OpenVINO refuses the file.
        UnavailableError: this machine does not compute in the precision.
    """
    if time_dtype is not None:
        raise ArgumentError("time_dtype is for modules and callables; an ONNX file fixes the type of its time itself.")
    global _core
    try:
        with telemetry.declined_by_openvino():
            import openvino
    except ImportError as error:
        raise MissingDependencyError(
            f"the runtime 'openvino' cannot import openvino ({error}): {install_hint('openvino')}"
        ) from None
    with _lock:
        if _core is None:
            _core = openvino.Core()
        made = _models.setdefault(model, _Compiled())
    _check_precision(precision)
    quantized = precision == "int8"
    with made.lock:
        if quantized not in made.graphs:
            changed = passes.for_openvino(model, precision)
            try:
                made.graphs[quantized] = _core.read_model(os.fspath(model.path) if changed is None else changed)
            except Exception as error:
                raise ArtifactError(f"OpenVINO refuses {str(model.path)!r}: {str(error)[:1000]}") from None
    return OpenVINONetwork(model, made, threads, precision, streams)


def _has_bfloat16() -> bool:
    return "BF16" in _core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _beside(precision: str) -> str:
    """What computes all that is not in int8: int8 is in the graph."""
    if precision != "int8":
        return precision
    return "bfloat16" if _has_bfloat16() else "float32"


def _check_precision(precision: str) -> None:
    """OpenVINO takes a hint of bfloat16 where the machine has none, and then computes in float32."""
    if precision == "bfloat16" and not _has_bfloat16():
        raise UnavailableError("precision is 'bfloat16', which this CPU does not compute in; OpenVINO has 'float32' here.")


def _own(port: Any, names: Set[str]) -> str:
    """Which of a file's inputs a port is: one that the file copies first, as by Identity, has the copies' names too.

    Raises:
        ArtifactError: it has the copy's name alone, as Dropout leaves it.
    """
    if found := port.names & names:
        return str(min(found))
    raise ArtifactError(
        f"OpenVINO renames an input of the network to {', '.join(sorted(port.names))!r}, as it does where the file begins with "
        "Dropout; runtime='onnx' runs it."
    )


class OpenVINONetwork(Threaded):
    """A model, and how it is to be compiled for the batches it is bound to."""

    name = "openvino"

    def __init__(self, model: Model, made: _Compiled, threads: int | None, precision: str, streams: int):
        super().__init__()
        # Of the model no more than it says: the compiled ones live as long as it does.
        self._path = str(model.path)
        self._files = model.files if model.external else Files()
        self._made, self._threads, self._precision, self._streams = made, threads, precision, streams
        self._graph = made.graphs[precision == "int8"]
        # Those that the network uses: of a graph that does not come from a file OpenVINO drops others.
        names = {model.input, model.time.input, *(one.name for one in model.conditioning)}
        self._used = {_own(one, names) for one in self._graph.inputs}
        dims: Any = self._graph.input(model.time.input).partial_shape if model.time.input in self._used else []
        per_sample = len(dims) == 1 and dims[0].is_dynamic
        self._inputs = Inputs(model.input, model.shape, model.time, len(dims), per_sample, model.conditioning)
        self._output, self._output_shape = model.output, model.output_shape

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> OpenVINOCall:
        self.check_process()
        inputs = self._inputs.arrays(batch, shape, cond)
        compiled = self._compiled({name: array.shape for name, array in inputs.items() if name in self._used})
        into = aligned((batch, *(output_shape or self._output_shape)))
        return OpenVINOCall(compiled, inputs, self._inputs.sample, self._inputs.time.input, self._output, into)

    def _compiled(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        made = self._made
        key = (self._precision, self._threads, self._streams, *sorted(shapes.items()))
        with made.lock:
            if key in made.compiled:
                made.compiled.move_to_end(key)
                return made.compiled[key]
            # Of the calls that are going on at once, none is to sit on the cores of another: no pinning.
            hint = _HINTS[_beside(self._precision)]
            config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False,
                                      "NUM_STREAMS": self._streams}  # fmt: skip
            # It counts the cores itself, but knows no quota.
            threads = machine.physical_cores() if self._threads is None and machine.quota() is not None else self._threads
            if threads is not None:
                config["INFERENCE_NUM_THREADS"] = threads * self._streams
            try:
                graph = self._graph.clone()
                graph.reshape({name: list(shape) for name, shape in shapes.items()})
                norms_in_rows(graph)
                if hint == _HINTS["bfloat16"]:
                    keep_exact(_core, graph, self._inputs.sample)
                with self._files.unchanged():  # weights beside the model are mapped, and may be read only now
                    compiled = _core.compile_model(graph, "CPU", config)
            except DiffuseFastError:
                raise
            except Exception as error:
                raise ArtifactError(f"OpenVINO refuses {self._path!r}: {str(error)[:1000]}") from None
            told = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if told != hint:
                raise UnavailableError(f"precision is {self._precision!r}, but OpenVINO computes in {told} on this machine.")
            made.compiled[key] = compiled
            while len(made.compiled) > _KEPT:
                made.compiled.popitem(last=False)
            return compiled


class OpenVINOCall(MemoryCall):
    """A request whose tensors are the memory."""

    def __init__(self, compiled: Any, inputs: dict[str, np.ndarray], sample: str, time: str, output: str, into: np.ndarray) -> None:
        from openvino import Tensor

        super().__init__(inputs, sample, time, into)
        check_output(tuple(compiled.output(output).shape), into.shape)
        request = compiled.create_infer_request()
        for name in (_own(one, inputs.keys()) for one in compiled.inputs):
            request.set_tensor(name, Tensor(inputs[name], shared_memory=True))
        request.set_tensor(output, Tensor(into, shared_memory=True))

        here = Threaded()

        def run() -> None:
            here.check_process()
            request.start_async()
            request.wait()

        self._run = run
