"""onnxruntime on CUDA: inputs and output bound to device memory once, all work on the engine's stream, no torch needed.

A session that cannot put the whole network on the GPU is refused: what is asked for runs there or fails.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, MissingDependencyError, NetworkError, UnavailableError, install_hint
from ..model import Model
from .base import Memory, check_names, own_cond, whole
from .onnx import input_dtype

PROVIDERS = {"onnx": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

# One session per model and what it was made with, as long as the model lives.
_sessions: weakref.WeakKeyDictionary[Model, dict[Any, Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_graph_ids = itertools.count(1)


def provider_options(runtime: str, index: int, stream: int, graph: bool) -> list[tuple[str, dict[str, str]]]:
    """Execution providers and their options, in order of preference.

    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html
    """
    shared = {"device_id": str(index), "user_compute_stream": str(stream)}
    cuda = (PROVIDERS["onnx"], {**shared, "enable_cuda_graph": str(int(graph and runtime == "onnx"))})
    if runtime == "onnx":
        return [cuda]
    return [(PROVIDERS[runtime], {**shared, "trt_cuda_graph_enable": str(int(graph))}), cuda]


def session(model: Model, runtime: str, index: int, stream: int, graph: bool) -> Any:
    """A session of this model on a CUDA device and stream.

    Raises:
        UnavailableError: onnxruntime has no such provider, it does not start here, or a part of the network would run on the
            CPU.
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"the runtime {runtime!r} cannot import onnxruntime ({error}): {install_hint('gpu')}"
        ) from None
    key = runtime, index, stream, graph
    with _lock:
        sessions = _sessions.setdefault(model, {})
        if key not in sessions:
            sessions[key] = _make(onnxruntime, model, runtime, index, stream, graph)
        return sessions[key]


def _make(onnxruntime: Any, model: Model, runtime: str, index: int, stream: int, graph: bool) -> Any:
    wanted = PROVIDERS[runtime]
    # That a provider is listed says what onnxruntime was built with, not that it starts; that it is not listed is final.
    if wanted not in (known := onnxruntime.get_available_providers()):
        raise UnavailableError(
            f"onnxruntime {onnxruntime.__version__} has no {wanted} (it has {', '.join(known)}): {install_hint('gpu')}"
        )
    onnxruntime.preload_dlls()  # CUDA and cuDNN from PyPI's packages, where they are not on the system
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        made = onnxruntime.InferenceSession(
            os.fspath(model.path), options, providers=provider_options(runtime, index, stream, graph), enable_fallback=0
        )
    except Exception as error:
        raise UnavailableError(f"onnxruntime does not run {model.name} on cuda:{index}: {str(error)[:1000]}") from None
    # A provider that does not start is left out without an error.
    if wanted not in (got := made.get_providers()):
        raise UnavailableError(
            f"onnxruntime's {wanted} does not start on cuda:{index} (it runs on {', '.join(got)}); look at its logs, and at "
            f"diffuse-fast doctor."
        )
    return made


class OnnxDeviceNetwork:
    """A model file on a CUDA device; ``graph``: onnxruntime captures each call and replays it."""

    name = "onnx"
    best_graph = "none"  # not every network can be captured by onnxruntime

    def __init__(self, model: Model, runtime: str, index: int, stream: int, graph: bool):
        self.session, self.model, self.index, self.graph = session(model, runtime, index, stream, graph), model, index, graph
        self.inputs = {i.name: i for i in self.session.get_inputs()}

    def bind_device(
        self,
        memory: Memory,
        batch: int,
        shape: tuple[int, ...],
        cond: list[dict[str, Any]],
        output_shape: tuple[int, ...] | None = None,
    ) -> OnnxDeviceCall:
        model = self.model
        names = [name for name in self.inputs if name not in (model.input, model.time.input)]
        own = []
        for given in cond:
            check_names(given, names)
            own.append({name: self._fitting(name, value) for name, value in own_cond(given, batch, _is_there).items()})
        time = self.inputs[model.time.input]
        # The step writes the times where the network reads them.
        if len(time.shape) != 1 or time.shape[0] == 1:
            raise ArgumentError(f"the network's input {time.name!r} is {time.shape}; on a device it must be one time per sample.")
        return OnnxDeviceCall(self, memory, batch, shape, own, tuple(output_shape or model.output_shape))

    def fingerprint(self) -> Any:
        return None  # the session owns its weights

    def _fitting(self, name: str, array: Any) -> Any:
        dtype = np.dtype(input_dtype(self.inputs[name]))
        if _is_there(array):
            if array.dtype != dtype:
                raise ArgumentTypeError(
                    f"cond[{name!r}] is {array.dtype} there; the network takes {dtype}: convert it on the device."
                )
            return array
        if not np.can_cast(array.dtype, dtype, "same_kind") or (dtype.kind in "iu" and array.dtype.kind == "b"):
            raise ArgumentTypeError(f"cond[{name!r}] has the dtype {array.dtype}; the network takes {dtype}.")
        return np.ascontiguousarray(array, dtype)


class OnnxDeviceCall:
    """See :class:`~diffuse_fast.runtimes.base.DeviceCall`. Evaluations share state and times, and run one after the other."""

    captures_itself = True

    def __init__(
        self,
        network: OnnxDeviceNetwork,
        memory: Memory,
        batch: int,
        shape: tuple[int, ...],
        cond: list[dict[str, Any]],
        output_shape: tuple[int, ...],
    ):
        model = network.model
        self._memory, self._session = memory, network.session
        time = np.dtype(input_dtype(network.inputs[model.time.input]))
        self._integer = time.kind == "i"
        self.x, self.t = memory.alloc((batch, *shape)), memory.alloc((batch,), time)
        self._cond = [{name: memory.alloc(v.shape, v.dtype) for name, v in c.items()} for c in cond]
        self._outputs = [memory.alloc((batch, *output_shape)) for _ in cond]
        self._bindings = []
        for given, output in zip(self._cond, self._outputs, strict=True):
            binding = self._session.io_binding()
            for name, array in {model.input: self.x, model.time.input: self.t, **given}.items():
                binding.bind_input(name, "cuda", network.index, np.dtype(array.dtype).type, array.shape, _address(array))
            binding.bind_output(model.output, "cuda", network.index, np.float32, output.shape, _address(output))
            self._bindings.append((binding, _run_options(network.graph)))
        self.condition(cond)

    def condition(self, cond: list[dict[str, Any]]) -> None:
        for arrays, given in zip(self._cond, cond, strict=True):
            for name, array in arrays.items():
                value = given[name]
                self._memory.upload(value if _is_there(value) else value.astype(array.dtype, copy=False), array)

    def check(self, t: float) -> None:
        if self._integer:
            whole(t)

    def __call__(self, evaluations: int, whole: bool) -> list[Any]:
        try:
            for binding, options in self._bindings[:evaluations]:
                self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise NetworkError(f"the network failed: {type(error).__name__}: {str(error)[:1000]}") from error
        return self._outputs[:evaluations]


def _run_options(graph: bool) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    # The step waits in the same stream, not on the host.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if graph:  # a captured graph holds addresses: one for each binding
        options.add_run_config_entry("gpu_graph_id", str(next(_graph_ids)))
    return options


def _is_there(array: Any) -> bool:
    return hasattr(array, "__cuda_array_interface__")


def _address(array: Any) -> int:
    return array.__cuda_array_interface__["data"][0]
