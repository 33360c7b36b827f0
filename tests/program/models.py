"""Small ONNX models of a few nodes, and the comparison of their programs with onnxruntime."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from diffuse_fast.onnx import network
from diffuse_fast.program.finish import finish
from diffuse_fast.program.lower import lower
from diffuse_fast.program.program import Program
from diffuse_fast.program.reference import Reference

node = helper.make_node


def steps(*texts: str) -> list[onnx.NodeProto]:
    """Nodes, each written ``"Operator inputs -> outputs; attribute=value"``; ``_`` is an absent input."""
    out = []
    for i, text in enumerate(texts):
        call, *attributes = text.split("; ")
        (op, *inputs), outputs = (side.split() for side in call.split(" -> "))
        values = {name: ast.literal_eval(value) for name, _, value in (a.partition("=") for a in attributes)}
        out.append(node(op, [name.strip("_") for name in inputs], outputs, f"{op}_{i}", **values))
    return out


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    x: Sequence[int],
    weights: Mapping[str, np.ndarray] | None = None,
    conditions: Mapping[str, tuple[str, Sequence[int]]] | None = None,
    opset: int = 21,
    functions: Sequence[onnx.FunctionProto] = (),
    output: str = "y",
) -> Path:
    """Write a model with the inputs x (batch, *x), t (batch,) of int64 and the conditions {name: (dtype, shape)}."""
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    inputs = [
        helper.make_tensor_value_info(name, kinds[dtype], ["batch", *shape])
        for name, (dtype, shape) in {"x": ("float32", x), "t": ("int64", ()), **(conditions or {})}.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "network",
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions)), path)
    return path


def unfused(path: Path) -> Program:
    """The program of a file before fusion."""
    program = finish(lower(network.read(path), 61))
    assert program is not None
    return program


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """The initializers of a file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def error(path: Path, inputs: Sequence[np.ndarray], program: Program | None = None) -> float:
    """The largest difference between the program, in float64, and onnxruntime, over the largest output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip([one.name for one in session.get_inputs()], inputs, strict=True)))[0]
    found = Reference(program or unfused(path), weights_of(path))(inputs[0], inputs[1], inputs[2:])
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def random_inputs(path: Path, batch: int, seed: int = 0) -> list[np.ndarray]:
    """Inputs of a model that :func:`write` wrote; integers are below 3."""
    rng = np.random.default_rng(seed)
    out = []
    for value in onnx.load(path).graph.input:
        shape = (batch, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        kind = value.type.tensor_type.elem_type
        if kind == TensorProto.FLOAT:
            out.append(rng.standard_normal(shape, np.float32))
        else:
            out.append(rng.integers(0, 3, shape) if kind == TensorProto.INT64 else rng.random(shape) < 0.7)
    return out
