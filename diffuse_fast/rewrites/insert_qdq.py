"""Insert QuantizeLinear and DequantizeLinear around layers, in the form that runtimes replace by int8 kernels.

A layer is a convolution or a matrix product whose weight is in the file. The weight becomes int8, symmetric, with one scale per
output channel. The input becomes uint8 over the range found by calibration (``docs/artifact.md``). With scales s and s_w and zero
point z, integer arithmetic computes the product exactly:

    y = s·s_w·(Σ (q_x − z)·q_w + q_b),  q_x = clamp(round(x/s) + z, 0, 255),  q_b = round(b/(s·s_w))

Source: Jacob et al. 2018, equations 3 and 7; ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..artifact.document import Quantization, Range
from ..errors import ArtifactError
from ..onnx.graph import Graph, Node
from .split_upsample_conv import split_upsample_convs

# Axis of the output channels in the weight of each operator.
_CHANNEL_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": -1}
# Limit of an int32 bias, so that 2^15 products of up to 2^15 each can be added to it without overflow.
_LARGEST_BIAS = 2.0**29
_SMALLEST_SCALE = np.float32(2.0**-80)  # the product of two scales must not be subnormal
_LINEAR = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}  # attributes of a Gemm that is a linear layer


def insert_qdq(quantization: Quantization, *, quantize_outputs: bool) -> Callable[[Graph], bool]:
    """Return a pass that makes the layers of a document's ``quantization`` compute in int8.

    Convolutions of upsampled images are split first (:mod:`.split_upsample_conv`); the parts take the ranges of the layer.

    Args:
        quantization: Names of the layers, and ranges.
        quantize_outputs: Quantize outputs too. onnxruntime needs this to fuse a convolution; OpenVINO does not.
    """

    def run(graph: Graph) -> bool:
        layers, ranges = list(quantization.layers), dict(quantization.ranges)
        for name, split in split_upsample_convs(graph).items():
            if name in layers:
                at = layers.index(name)
                layers[at : at + 1] = split.parts
                for part, original in ((split.small, split.upsampled), *((part, name) for part in split.parts)):
                    if original in ranges:
                        ranges.setdefault(part, ranges[original])
        try:
            quantize_layers(graph, layers, ranges, outputs=quantize_outputs)
        except KeyError as error:
            raise ArtifactError(f"the model's field 'quantization' lacks the range or layer {error}.") from None
        return True

    return run


def quantizable_layers(graph: Graph) -> list[Node]:
    """Return the nodes that can compute in int8, those with a float32 weight in the file, in the order of the graph."""
    return [node for node in graph.nodes if _weight(graph, node) is not None]


def quantize_layers(graph: Graph, names: Iterable[str], ranges: Mapping[str, Range], *, outputs: bool) -> None:
    """Make layers compute in int8.

    Args:
        graph: Edited in place.
        names: Names of the layers' outputs.
        ranges: Ranges by name of value: of the layers' inputs, and with ``outputs`` of their outputs.
        outputs: Quantize outputs too.

    Raises:
        KeyError: a layer does not exist, or a value has no range.
    """
    remaining = set(names)
    nodes: list[Node] = []
    quantized: dict[str, str] = {}  # value -> the same value after quantization to uint8
    for node in graph.nodes:
        weight = _weight(graph, node) if node.outputs[0] in remaining else None
        if weight is None:
            nodes.append(node)
            continue
        x, y = node.inputs[0], node.outputs[0]
        if x not in quantized:
            quantized[x] = graph.new_name(x)
            nodes += fake_quantize(graph, x, quantized[x], ranges[x])
        axis = channel_axis(node, weight)
        input_scale = scale_and_zero_point(ranges[x])[0]
        biases = [np.asarray(graph.weight(bias), np.float64) for bias in node.inputs[2:]] if outputs else []
        scales, levels = quantize_weight(weight, axis, *(np.abs(bias) / (input_scale * _LARGEST_BIAS) for bias in biases))
        inputs = [quantized[x], graph.new_name(node.inputs[1])]
        nodes.append(_dequantize(graph, node.inputs[1], levels, scales, inputs[1], axis))
        inputs += node.inputs[2:]
        for i, exact in enumerate(biases, 2):  # int32 in the scale of the product; onnxruntime does not fuse other biases
            bias, inputs[i] = inputs[i], graph.new_name(inputs[i])
            array = np.rint(exact / (scales * input_scale)).astype(np.int32)
            nodes.append(_dequantize(graph, bias, array, scales * input_scale, inputs[i], 0))
        raw = graph.new_name(y) if outputs else y
        nodes.append(graph.rewired(node, tuple(inputs), (raw,)))
        if outputs:
            nodes += fake_quantize(graph, raw, y, ranges[y])
        remaining.remove(y)
    if remaining:
        raise KeyError(min(remaining))
    graph.nodes[:] = nodes


def scale_and_zero_point(bounds: Range) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of uint8 over a range.

    The range is widened to include 0, which is then exact. If the scale would be subnormal, the values count as zeros.
    """
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = np.float32((high - low) / 255.0)
    if scale < np.finfo(np.float32).tiny:
        low, scale = 0.0, np.float32(1.0)
    return scale, np.uint8(np.clip(np.rint(-low / float(scale)), 0, 255))


def channel_axis(node: Node, weight: np.ndarray) -> int:
    """Return the axis of the output channels in a layer's weight."""
    return _CHANNEL_AXIS[node.op] % weight.ndim


def quantize_weight(weight: np.ndarray, axis: int, least: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return scales (channels,) float32, and the weight as int8 from -127 to 127.

    Args:
        weight: float32, of any shape.
        axis: Axis of its output channels.
        least: Smallest scales (channels,). With a smaller one, the bias of a channel with tiny weights would overflow int32.
    """
    other_axes = tuple(i for i in range(weight.ndim) if i != axis)
    scales = np.maximum(np.abs(weight).max(axis=other_axes) / np.float32(127.0), least).astype(np.float32)
    scales = np.where(scales > 0, np.maximum(scales, _SMALLEST_SCALE), np.float32(1.0))  # 1 for a channel of zeros
    broadcast = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return scales, np.clip(np.rint(weight / broadcast), -127, 127).astype(np.int8)


def _weight(graph: Graph, node: Node) -> np.ndarray | None:
    """Return the weight of a node that can compute in int8; None for other nodes."""
    if node.domain or node.op not in _CHANNEL_AXIS:
        return None
    if node.op == "Gemm" and {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **node.attributes} != _LINEAR:
        return None
    arrays = [graph.weight(name) for name in node.inputs[1:]]
    weight, *biases = arrays or [None]
    if weight is None or weight.ndim < 2:
        return None
    channels = weight.shape[channel_axis(node, weight)]
    return weight if all(bias is not None and bias.shape == (channels,) for bias in biases) else None


def fake_quantize(graph: Graph, x: str, y: str, bounds: Range) -> list[Node]:
    """Return nodes that compute ``y``: ``x`` rounded to uint8 over a range, and dequantized."""
    scale, zero = scale_and_zero_point(bounds)
    q, s, z = graph.new_name(x), graph.add_constant(x, np.asarray(scale)), graph.add_constant(x, np.asarray(zero))
    return [Node("QuantizeLinear", (x, s, z), (q,)), Node("DequantizeLinear", (q, s, z), (y,))]


def _dequantize(graph: Graph, like: str, levels: np.ndarray, scales: np.ndarray, to: str, axis: int) -> Node:
    zeros = np.zeros(scales.shape, levels.dtype)
    names = [graph.add_constant(like, array) for array in (levels, scales, zeros)]
    return Node("DequantizeLinear", tuple(names), (to,), {"axis": axis})
