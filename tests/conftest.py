"""Model files that tests of several rooms make: written by onnx's own library, so that what we read has another author."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys

# Threads of torch wait for each other; on cores that are busy with other work that makes seconds minutes. Before it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# A shell lets what it starts in the background ignore Ctrl-C; tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow or busy machine must not fail a property; timings are not tests.
settings.register_profile("diffuse_fast", deadline=None, print_blob=True)
settings.load_profile("diffuse_fast")

os.environ["DIFFUSE_FAST_CACHE"] = "off"  # what was tuned on this machine is none of the tests' business
# Tests import runtimes directly, where the package cannot switch their telemetry off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

DOCUMENT = {
    "format": "diffuse_fast.model",
    "version": 1,
    "name": "small",
    "schedule": {"type": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
    "prediction_type": "epsilon",
    "time": {"input": "t", "convention": "timestep", "dtype": "int64"},
    "sample": {"input": "x", "output": "output", "shape": [2, 3], "dtype": "float32", "value_range": [-1, 1]},
    "input_scale": "none",
    "variance": "none",
    "clip": [-1, 1],
    "conditioning": [{"name": "label", "dtype": "int64", "shape": [], "null": 4, "classes": 4}],
    "training": {"seed": 3},
    "license": "Apache-2.0",
    "producer": "a test",
    "opset": 21,
}


def small_proto(document=DOCUMENT, **change):
    """output = x·(1 + t/1000) + table[label], with shapes (B, 2, 3), (B,), (B,). ``change`` replaces an input's or output's
    (type, dims) by name."""
    from onnx import TensorProto, helper, numpy_helper

    values = {
        "x": (TensorProto.FLOAT, ["B", 2, 3]),
        "t": (TensorProto.INT64, ["B"]),
        "label": (TensorProto.INT64, ["B"]),
        "output": (TensorProto.FLOAT, ["B", 2, 3]),
        **change,
    }
    info = {name: helper.make_tensor_value_info(name, *value) for name, value in values.items()}
    table = np.arange(30, dtype=np.float32).reshape(5, 2, 3) / 10
    nodes = [
        helper.make_node("Cast", ["t"], ["tf"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["tf", "thousand"], ["ts"]),
        helper.make_node("Add", ["ts", "one"], ["factor"]),
        helper.make_node("Unsqueeze", ["factor", "axes"], ["factors"]),
        helper.make_node("Mul", ["x", "factors"], ["scaled"]),
        helper.make_node("Gather", ["table", "label"], ["shift"]),
        helper.make_node("Add", ["scaled", "shift"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [v for name, v in info.items() if name != "output"],
        [info["output"]],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.float32(1000), "thousand"),
            numpy_helper.from_array(np.float32(1), "one"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    if document is not None:
        helper.set_model_props(
            model, {"diffuse_fast": document if isinstance(document, str) else json.dumps(document), "author": "nobody"}
        )
    return model


@pytest.fixture
def document():
    """A valid document, to be changed at will."""
    return copy.deepcopy(DOCUMENT)


@pytest.fixture
def small(tmp_path):
    """``small(document, **change) -> path``: writes :func:`small_proto`."""
    pytest.importorskip("onnx")

    def write(document=DOCUMENT, name="small.onnx", **change) -> Path:
        path = tmp_path / name
        path.write_bytes(small_proto(document, **change).SerializeToString())
        return path

    return write


def small_network(x, t, label):
    """What :func:`small_proto` computes, in float64."""
    table = np.arange(30).reshape(5, 2, 3) / 10
    return x.astype(np.float64) * (1 + np.asarray(t) / 1000)[:, None, None] + table[label]


@pytest.fixture
def small_oracle():
    """The function that the small model computes."""
    return small_network
