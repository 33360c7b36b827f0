"""onnxruntime on CUDA: inputs and output are bound to device memory once, and all work is on the engine's stream, without torch.

A session that cannot run the whole network on the GPU is an error.
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
from .base import Memory, Placement, cast_cond, check_names, copied_cond, require_integer_times
from .onnx import input_dtype

PROVIDERS = {"onnx": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

# Sessions by model and settings, as long as the model lives.
_sessions: weakref.WeakKeyDictionary[Model, dict[Any, Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_graph_ids = itertools.count(1)


def provider_options(runtime: str, index: int, stream: int, graph: bool) -> list[tuple[str, dict[str, str]]]:
    """Return execution providers and their options, in order of preference.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html
    """
    shared = {"device_id": str(index), "user_compute_stream": str(stream)}
    cuda = (PROVIDERS["onnx"], {**shared, "enable_cuda_graph": str(int(graph and runtime == "onnx"))})
    if runtime == "onnx":
        return [cuda]
    return [(PROVIDERS[runtime], {**shared, "trt_cuda_graph_enable": str(int(graph))}), cuda]


def session(model: Model, runtime: str, index: int, stream: int, graph: bool) -> Any:
    """Return the session of a model on a CUDA device and stream.

    Raises:
        UnavailableError: onnxruntime lacks the provider, the provider does not start here, or a part of the network would run on
            the CPU.
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
    # A listed provider was built in, but may still not start.
    if wanted not in (known := onnxruntime.get_available_providers()):
        raise UnavailableError(
            f"onnxruntime {onnxruntime.__version__} has no {wanted} (it has {', '.join(known)}): {install_hint('gpu')}"
        )
    onnxruntime.preload_dlls()  # CUDA and cuDNN from PyPI's packages, if they are not installed on the system
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        made = onnxruntime.InferenceSession(
            os.fspath(model.path), options, providers=provider_options(runtime, index, stream, graph), enable_fallback=0
        )
    except Exception as error:
        raise UnavailableError(f"onnxruntime does not run {model.name} on cuda:{index}: {str(error)[:1000]}") from None
    # onnxruntime drops a provider that does not start, without an error.
    if wanted not in (got := made.get_providers()):
        raise UnavailableError(
            f"onnxruntime's {wanted} does not start on cuda:{index} (it runs on {', '.join(got)}); look at its logs, and at "
            f"diffuse-fast doctor."
        )
    return made


def network(model: Model, placement: Placement) -> OnnxDeviceNetwork:
    """Make a network from an artifact on a CUDA device.

    Raises:
        ArtifactError: the file changed after it was loaded.
        UnavailableError, MissingDependencyError: as :func:`session`.
    """
    stream = placement.stream or 0  # 0: the default stream
    with model.files.unchanged():
        return OnnxDeviceNetwork(model, placement.runtime, placement.index, stream, placement.graph == "tick")


class OnnxDeviceNetwork:
    """A model file on a CUDA device. With ``graph``, onnxruntime captures each call in a CUDA graph and replays it."""

    name = "onnx"
    best_graph = "none"  # onnxruntime cannot capture every network

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
            own.append({name: self._fitting(name, value) for name, value in copied_cond(given, batch, _on_device).items()})
        time = self.inputs[model.time.input]
        # The step writes the times into the network's input.
        if len(time.shape) != 1 or time.shape[0] == 1:
            raise ArgumentError(
                f"the network's input {time.name!r} has the shape {time.shape}; on a device it must take one time per sample."
            )
        return OnnxDeviceCall(self, memory, batch, shape, own, tuple(output_shape or model.output_shape))

    def fingerprint(self) -> Any:
        return None  # the session owns its weights

    def _fitting(self, name: str, array: Any) -> Any:
        dtype = np.dtype(input_dtype(self.inputs[name]))
        if _on_device(array):
            if array.dtype != dtype:
                raise ArgumentTypeError(
                    f"cond[{name!r}] has the dtype {array.dtype}; the network takes {dtype}: convert it on the device."
                )
            return array
        return cast_cond(name, array, dtype)


class OnnxDeviceCall:
    """See :class:`~diffuse_fast.runtimes.base.DeviceCall`. Evaluations share state and times, and run one by one."""

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
                self._memory.upload(value if _on_device(value) else value.astype(array.dtype, copy=False), array)

    def check(self, t: float) -> None:
        if self._integer:
            require_integer_times(t)

    def __call__(self, evaluations: int, integer_times: bool) -> list[Any]:
        try:
            for binding, options in self._bindings[:evaluations]:
                self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise NetworkError(f"the network failed: {type(error).__name__}: {str(error)[:1000]}") from error
        return self._outputs[:evaluations]


def _run_options(graph: bool) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    # The step is in the same stream, so the host does not have to wait.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if graph:  # a captured graph holds addresses, so each binding needs its own
        options.add_run_config_entry("gpu_graph_id", str(next(_graph_ids)))
    return options


def _on_device(array: Any) -> bool:
    return hasattr(array, "__cuda_array_interface__")


def _address(array: Any) -> int:
    return array.__cuda_array_interface__["data"][0]
