"""A graph whose layers compute in int8: QuantizeLinear and DequantizeLinear around them, as runtimes look for them.

A layer is a convolution or a product with a weight of the file. Its weight is int8, symmetric, with a scale for each output
channel; its input is uint8 over the range that calibration found (``docs/artifact.md``). With scales s, s_w and zero point z
the product is exact in integers:

    y = s·s_w·(Σ (q_x − z)·q_w + q_b),  q_x = clamp(round(x/s) + z, 0, 255),  q_b = round(b/(s·s_w))

Source: Jacob et al. 2018, equations 3 and 7; ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..artifact.document import Range
from ..onnx.graph import Node, Nodes

# Where the weight of an operation has its output channels.
_CHANNELS = {"Conv": 0, "Gemm": 0, "MatMul": -1}
# Of a bias in int32, to which the products are added: of up to 2^15 each, so that 2^15 of them fit beside it.
_LARGEST_BIAS = 2.0**29
_LEAST = np.float32(2.0**-80)  # of a scale: its product with another is not to be subnormal
_PLAIN_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}  # as a linear layer is exported


def layers(graph: Nodes) -> list[Node]:
    """The nodes that can compute in int8: those with a float32 weight in the file, in the graph's order."""
    return [node for node in graph.nodes if _weight(graph, node) is not None]


def quantize(graph: Nodes, names: Iterable[str], ranges: Mapping[str, Range], *, outputs: bool) -> None:
    """Let layers compute in int8.

    Args:
        graph: To be changed.
        names: Of the layers: their outputs.
        ranges: Of the values that are quantised, by name: the layers' inputs, and with ``outputs`` their outputs.
        outputs: Whether outputs are quantised too: onnxruntime fuses a convolution only so, OpenVINO does not need it.

    Raises:
        KeyError: there is no such layer, or a value has no range.
    """
    chosen = set(names)
    nodes: list[Node] = []
    quantized: dict[str, str] = {}  # what a value is called when it has been through uint8
    for node in graph.nodes:
        weight = _weight(graph, node) if node.outputs[0] in chosen else None
        if weight is None:
            nodes.append(node)
            continue
        x, y = node.inputs[0], node.outputs[0]
        if x not in quantized:
            quantized[x] = graph.fresh(x)
            nodes += through(graph, x, quantized[x], ranges[x])
        axis = channels(node, weight)
        over = parameters(ranges[x])[0]
        biases = [np.asarray(graph.weight(bias), np.float64) for bias in node.inputs[2:]] if outputs else []
        scales, levels = per_channel(weight, axis, *(np.abs(exact) / (over * _LARGEST_BIAS) for exact in biases))
        inputs = [quantized[x], graph.fresh(node.inputs[1])]
        nodes.append(_dequantize(graph, node.inputs[1], levels, scales, inputs[1], axis))
        inputs += node.inputs[2:]
        for i, exact in enumerate(biases, 2):  # as int32 of the product's own scale, without which it is not fused
            bias, inputs[i] = inputs[i], graph.fresh(inputs[i])
            array = np.rint(exact / (scales * over)).astype(np.int32)
            nodes.append(_dequantize(graph, bias, array, scales * over, inputs[i], 0))
        raw = graph.fresh(y) if outputs else y
        nodes.append(graph.rewired(node, tuple(inputs), (raw,)))
        if outputs:
            nodes += through(graph, raw, y, ranges[y])
        chosen.remove(y)
    if chosen:
        raise KeyError(min(chosen))
    graph.nodes[:] = nodes


def parameters(over: Range) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 over a range, widened to have 0 in it, which is then exact; one whose scale would be no normal
    number is taken for that of zeros."""
    low, high = min(over[0], 0.0), max(over[1], 0.0)
    scale = np.float32((high - low) / 255.0)
    if scale < np.finfo(np.float32).tiny:
        low, scale = 0.0, np.float32(1.0)
    return scale, np.uint8(np.clip(np.rint(-low / float(scale)), 0, 255))


def channels(node: Node, weight: np.ndarray) -> int:
    """The axis of a layer's weight that its output channels are on."""
    return _CHANNELS[node.op] % weight.ndim


def per_channel(weight: np.ndarray, axis: int, least: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scales (channels,) float32, and the weight as int8 of -127 to 127.

    Args:
        weight: float32, of any shape.
        axis: Where its channels are.
        least: Scales (channels,) that are not undercut: in those of a channel of tiny weights its bias would not fit in int32.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = np.maximum(np.abs(weight).max(axis=others) / np.float32(127.0), least).astype(np.float32)
    scales = np.where(scales > 0, np.maximum(scales, _LEAST), np.float32(1.0))  # 1 where there is nothing to scale
    each = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return scales, np.clip(np.rint(weight / each), -127, 127).astype(np.int8)


def _weight(graph: Nodes, node: Node) -> np.ndarray | None:
    """The weight of a node that can compute in int8."""
    if node.domain or node.op not in _CHANNELS:
        return None
    if node.op == "Gemm" and {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **node.attributes} != _PLAIN_GEMM:
        return None
    arrays = [graph.weight(name) for name in node.inputs[1:]]
    weight, *biases = arrays or [None]
    if weight is None or weight.ndim < 2:
        return None
    each = weight.shape[channels(node, weight)]
    return weight if all(bias is not None and bias.shape == (each,) for bias in biases) else None


def through(graph: Nodes, x: str, y: str, over: Range) -> list[Node]:
    """Nodes by which ``y`` is ``x`` rounded to uint8 over a range."""
    scale, zero = parameters(over)
    q, s, z = graph.fresh(x), graph.constant(x, np.asarray(scale)), graph.constant(x, np.asarray(zero))
    return [Node("QuantizeLinear", (x, s, z), (q,)), Node("DequantizeLinear", (q, s, z), (y,))]


def _dequantize(graph: Nodes, like: str, levels: np.ndarray, scales: np.ndarray, to: str, axis: int) -> Node:
    zeros = np.zeros(scales.shape, levels.dtype)
    names = [graph.constant(like, array) for array in (levels, scales, zeros)]
    return Node("DequantizeLinear", tuple(names), (to,), {"axis": axis})
