"""Check that a document describes the graph that it comes with."""

from __future__ import annotations

from ..errors import ArtifactError
from ..onnx.header import Header, Value
from .document import Document
from .fields import fail


def check_graph(document: Document, header: Header) -> None:
    """Check that a document describes its graph.

    Raises:
        ArtifactError: an input or output is missing, not described, of another type or shape, or has a fixed batch.
    """
    inputs = {v.name: v for v in header.inputs}
    outputs = {v.name: v for v in header.outputs}

    x = _find(inputs, document.input, "sample.input", "input")
    _check_value(x, "sample", document.dtype, document.shape)
    t = _find(inputs, document.time.input, "time.input", "input")
    if t.dtype != document.time.dtype:
        fail("time.dtype", document.time.dtype, f"{t.dtype!r}, the type of the graph's input {t.name!r}")
    if t.shape is None or len(t.shape) > 1 or (t.shape and isinstance(t.shape[0], int) and t.shape[0] != 1):
        fail("time.input", t.name, f"an input of shape [batch], [1] or []; the graph's has {_format_shape(t)}")
    for c in document.conditioning:
        where = f"conditioning[{c.name!r}]"
        _check_value(_find(inputs, c.name, f"{where}.name", "input"), where, c.dtype, c.shape)
    spare = set(inputs) - {document.input, document.time.input} - {c.name for c in document.conditioning}
    if spare:
        raise ArtifactError(
            f"the graph has inputs that the model's 'sample', 'time' and 'conditioning' do not name: "
            f"{', '.join(map(repr, sorted(spare)))}. A sampler would have no values for them."
        )
    output = _find(outputs, document.output, "sample.output", "output")
    _check_value(output, "sample.output", document.dtype, document.output_shape, variance=document.variance)
    if document.opset != header.opset:
        fail("opset", document.opset, f"{header.opset}, which the graph imports")


def _find(values: dict[str, Value], name: str, where: str, kind: str) -> Value:
    if name not in values:
        fail(where, name, f"an {kind} of the graph, which has {', '.join(map(repr, values)) or 'none'}")
    return values[name]


def _check_value(value: Value, where: str, dtype: str, shape: tuple[int, ...], variance: str = "none") -> None:
    if value.dtype != dtype:
        fail(f"{where}.dtype", dtype, f"{value.dtype!r}, the type of {value.name!r} in the graph")
    dims = value.shape
    if dims is None or len(dims) != len(shape) + 1:
        fail(f"{where}.shape", list(shape), f"the shape of {value.name!r} in the graph without its batch: {_format_shape(value)}")
    if isinstance(dims[0], int):
        raise ArtifactError(
            f"the graph fixes the batch of {value.name!r} at {dims[0]}; a sampler needs it dynamic. Export it again with "
            f"df.export, or with a dynamic first dimension."
        )
    if any(isinstance(d, int) and d != s for d, s in zip(dims[1:], shape, strict=True)):
        doubled = "" if variance == "none" else f" (channels doubled by the field 'variance', {variance!r})"
        fail(
            f"{where}.shape", list(shape), f"{_format_shape(value)} without its batch, as the graph says of {value.name!r}{doubled}"
        )


def _format_shape(value: Value) -> str:
    if value.shape is None:
        return "no known rank"
    return "[" + ", ".join(str(d) if d != "" else "?" for d in value.shape) + "]"
