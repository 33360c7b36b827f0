"""OpenVINO. A bound call has a compiled model for its batch, whose tensors share NumPy's memory.

Each batch size is compiled: with a dynamic batch the CPU plugin 2026.4 takes more than twice as long (``docs/runtimes.md``). Parts
of a batch are computed beside each other, as many as divide both it and the threads: all threads on one part took up to 1.5 times
as long.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Set
from typing import Any

import numpy as np

from .. import machine, telemetry
from ..artifact.file_identity import Files
from ..errors import ArtifactError, DiffuseFastError, MissingDependencyError, UnavailableError, install_hint
from ..model import Model
from ..rewrites import passes
from ..rewrites.openvino_float32 import keep_float32, rounded_layers
from ..rewrites.openvino_group_norm import flatten_group_norms
from .base import Inputs, MemoryCall, aligned, check_output
from .fork_safety import ThreadOwner, forget_in_child

_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # values of the property INFERENCE_PRECISION_HINT

# Compiled models kept per model. Each holds a copy of the weights.
_KEPT = 4


class _Compiled:
    """OpenVINO's graphs of a model, and the compiled models that were used last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.graphs: dict[bool, Any] = {}  # by whether it is in int8
        self.compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


_models: weakref.WeakKeyDictionary[Model, _Compiled] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_core: Any = None


def _forget() -> None:
    """Reset the caches in a forked child."""
    global _models, _lock, _core
    _models, _lock, _core = weakref.WeakKeyDictionary(), threading.Lock(), None


forget_in_child(lambda: (_core, [(*made.graphs.values(), *made.compiled.values()) for made in _models.values()]), _forget)


def network(model: Model, *, threads: int | None = None, precision: str = "float32") -> OpenVINONetwork:
    """Make a network from a ``df.Model``.

    Raises:
        ArtifactError: OpenVINO rejects the file.
        UnavailableError: this machine does not have the precision.
    """
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
            changed = passes.rewritten(model, "openvino", precision)
            try:
                made.graphs[quantized] = _core.read_model(os.fspath(model.path) if changed is None else changed)
            except Exception as error:
                raise ArtifactError(f"OpenVINO rejects {str(model.path)!r}: {str(error)[:1000]}") from None
    return OpenVINONetwork(model, made, threads, precision)


def _has_bfloat16() -> bool:
    return "BF16" in _core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _float_precision(precision: str) -> str:
    """Return the precision of the layers that are not in int8; the graph itself says which are."""
    if precision != "int8":
        return precision
    return "bfloat16" if _has_bfloat16() else "float32"


def _check_precision(precision: str) -> None:
    """Check that the machine has bfloat16. Without it, OpenVINO accepts the hint and computes in float32."""
    if precision == "bfloat16" and not _has_bfloat16():
        raise UnavailableError("precision is 'bfloat16', which this CPU does not have; OpenVINO has 'float32' here.")


def _input_name(port: Any, names: Set[str]) -> str:
    """Return the name in the file of a model's input. OpenVINO may add the names of copies, such as the output of an Identity.

    Raises:
        ArtifactError: the port has only the name of a copy, as after Dropout.
    """
    if found := port.names & names:
        return str(min(found))
    raise ArtifactError(
        f"OpenVINO renames an input of the network to {', '.join(sorted(port.names))!r}, as it does if the file begins with "
        "Dropout; use runtime='onnx' for this model."
    )


class OpenVINONetwork(ThreadOwner):
    """A model and the settings to compile it with for each batch that it is bound to."""

    name = "openvino"

    def __init__(self, model: Model, made: _Compiled, threads: int | None, precision: str):
        super().__init__()
        # Copies, not the model itself: the cache drops the compiled models when the model is garbage-collected.
        self._path = str(model.path)
        self._files = model.files if model.external else Files()
        # Left out, OpenVINO counts the physical cores itself, but ignores a quota.
        self._made, self._threads, self._precision = made, threads or machine.physical_cores(), precision
        self._graph = made.graphs[precision == "int8"]
        # Only the inputs that the network uses: OpenVINO drops the others from a graph that is not read from a file.
        names = {model.input, model.time.input, *(one.name for one in model.conditioning)}
        self._used = {_input_name(one, names) for one in self._graph.inputs}
        dims: Any = self._graph.input(model.time.input).partial_shape if model.time.input in self._used else []
        per_sample = len(dims) == 1 and dims[0].is_dynamic
        self._inputs = Inputs(model.input, model.shape, model.time, len(dims), per_sample, model.conditioning)
        self._output, self._output_shape = model.output, model.output_shape

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> OpenVINOCall:
        self.check_process()
        inputs = self._inputs.arrays(batch, shape, cond)
        into = aligned((batch, *(output_shape or self._output_shape)))
        parts = math.gcd(batch, self._threads)
        whole = set() if self._inputs.per_sample else {self._inputs.time.input}
        requested = [
            {name: array if name in whole else array[part] for name, array in inputs.items()}
            for part in (slice(i * batch // parts, (i + 1) * batch // parts) for i in range(parts))
        ]
        shapes = {name: array.shape for name, array in requested[0].items() if name in self._used}
        compiled = self._compiled(shapes, parts)
        return OpenVINOCall(compiled, inputs, requested, self._inputs.sample, self._inputs.time.input, self._output, into)

    def _compiled(self, shapes: dict[str, tuple[int, ...]], streams: int) -> Any:
        """Return the model compiled for these inputs, of which ``streams`` calls run beside each other."""
        made = self._made
        key = (self._precision, self._threads, streams, *sorted(shapes.items()))
        with made.lock:
            if key in made.compiled:
                made.compiled.move_to_end(key)
                return made.compiled[key]
            # No pinning, so that concurrent calls do not share cores.
            hint = _HINTS[_float_precision(self._precision)]
            config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False,
                                      "INFERENCE_NUM_THREADS": self._threads, "NUM_STREAMS": streams}  # fmt: skip
            try:
                graph = self._graph.clone()
                graph.reshape({name: list(shape) for name, shape in shapes.items()})
                flatten_group_norms(graph)
                if hint == _HINTS["bfloat16"]:
                    keep_float32(_core, self._inputs.sample)(graph)
                with self._files.unchanged():  # external weights are memory-mapped and may be read only here
                    compiled = _core.compile_model(graph, "CPU", config)
            except DiffuseFastError:
                raise
            except Exception as error:
                raise ArtifactError(f"OpenVINO rejects {self._path!r}: {str(error)[:1000]}") from None
            used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if used != hint:
                raise UnavailableError(f"precision is {self._precision!r}, but OpenVINO computes in {used} on this machine.")
            if rounded := hint == _HINTS["bfloat16"] and rounded_layers(graph, compiled.get_runtime_model()):
                raise UnavailableError(
                    f"precision is {self._precision!r}, but OpenVINO would compute {', '.join(rounded)} in bfloat16, which must be "
                    f"float32 (docs/runtimes.md); use precision='float32' or another runtime."
                )
            made.compiled[key] = compiled
            while len(made.compiled) > _KEPT:
                made.compiled.popitem(last=False)
            return compiled


class OpenVINOCall(MemoryCall):
    """Inference requests for the parts of a batch, whose tensors share the memory of the inputs and the output."""

    def __init__(
        self,
        compiled: Any,
        inputs: dict[str, np.ndarray],
        parts: list[dict[str, np.ndarray]],
        sample: str,
        time: str,
        output: str,
        into: np.ndarray,
    ) -> None:
        from openvino import Tensor

        super().__init__(inputs, sample, time, into)
        outputs = into.reshape(len(parts), -1, *into.shape[1:])
        check_output(tuple(compiled.output(output).shape), outputs.shape[1:])
        requests = []
        for part, result in zip(parts, outputs, strict=True):
            request = compiled.create_infer_request()
            for name in (_input_name(one, inputs.keys()) for one in compiled.inputs):
                request.set_tensor(name, Tensor(part[name], shared_memory=True))
            request.set_tensor(output, Tensor(result, shared_memory=True))
            requests.append(request)

        here = ThreadOwner()

        def run() -> None:
            here.check_process()
            with contextlib.ExitStack() as stack:
                for request in requests:
                    request.start_async()
                    stack.callback(request.wait)  # of every one, whatever another raises: none may write after the call

        self._run = run
