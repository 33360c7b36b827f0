"""What each runtime is given, against the file that torch's own exporter makes, one call of the bundled model on one thread.

OpenVINO gets that file for its batch, as its documentation says, and for any batch. No target: a change that does not pay on any
machine goes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

import diffuse_fast as df
from diffuse_fast import telemetry
from diffuse_fast.runtimes import network

from ..measure import Timing, interleaved, ratio
from ..modules import prepare
from ..networks import plain
from ..report import Line

with telemetry.declined_by_openvino():
    import openvino

NETWORK = "digits"
BATCHES = (1, 16, 64)


def run(seconds: float) -> list[Line]:
    prepare(NETWORK)
    model, lines = df.load(NETWORK), []
    for batch in BATCHES:
        rng = np.random.default_rng(0)
        inputs = {
            "x": rng.standard_normal((batch, *model.shape)).astype(np.float32),
            "t": np.full(batch, 500),
            "label": rng.integers(0, 10, batch),
        }
        calls = {
            "onnx": _ours(model, "onnx", inputs),
            "onnx, the plain file": _onnxruntime(inputs),
            "openvino": _ours(model, "openvino", inputs),
            "openvino, the plain file": _openvino(inputs, reshape=True),
            "openvino, the plain file for any batch": _openvino(inputs, reshape=False),
        }
        times = interleaved(calls, seconds=seconds / len(BATCHES))
        for name, values in times.items():
            peer = name.partition(",")[0]
            over = None if name == peer else ratio(times, name, peer)
            lines.append(Line(f"batch {batch}: {name}", seconds=Timing.of(values), peer=peer if over else None, ratio=over))
    return lines


def _ours(model: df.Model, runtime: str, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
    call = network(model, runtime, threads=1).bind(len(inputs["x"]), model.shape, {"label": inputs["label"]})
    call.x[...] = inputs["x"]
    return lambda: call(500.0)


def _onnxruntime(inputs: dict[str, np.ndarray]) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(plain(NETWORK), options, providers=["CPUExecutionProvider"])
    binding, output = session.io_binding(), np.empty_like(inputs["x"])
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    binding.bind_output("output", "cpu", 0, np.float32, output.shape, output.ctypes.data)
    return lambda: (session.run_with_iobinding(binding), output)


def _openvino(inputs: dict[str, np.ndarray], *, reshape: bool) -> Callable[[], object]:
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    network = core.read_model(plain(NETWORK))
    if reshape:
        network.reshape({name: array.shape for name, array in inputs.items()})
    request = core.compile_model(network, "CPU", config).create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def call() -> None:
        request.start_async()
        request.wait()

    return call
