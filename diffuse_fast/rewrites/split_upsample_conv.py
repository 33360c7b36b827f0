"""A convolution of a picture that was doubled by its nearest pixels, as four convolutions of the picture itself.

Each pixel of the doubled picture y sees, through a kernel W of 3x3, no more than 2x2 pixels of the small one x, some of them
several times. With those weights added beforehand it takes 4/9 of the products. For rows, and alike for columns:

    y[2i]     =  W[0]·x[i-1] + (W[1] + W[2])·x[i]
    y[2i+1]   =  (W[0] + W[1])·x[i] + W[2]·x[i+1]

which is equal within float32 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..onnx.graph import Attribute, Node, Nodes

_SCALES = [1.0, 1.0, 2.0, 2.0]
# Ways to tell coordinates by which doubling repeats every pixel.
_REPEATS = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}


@dataclass(frozen=True)
class Parted:
    """A convolution that was taken apart.

    Attributes:
        doubled, small: The values that it read, and that its parts read: the same numbers.
        parts: The outputs of its parts.
    """

    doubled: str
    small: str
    parts: tuple[str, ...]


def take_apart(graph: Nodes) -> dict[str, Parted]:
    """Change all such convolutions of a graph; what became of them, by their outputs."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    doublings = {node.outputs[0]: node for node in graph.nodes if node.outputs[0] not in graph.elsewhere and _doubles(graph, node)}
    nodes: list[Node] = []
    found: dict[str, Parted] = {}
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else ""
        weight = graph.weight(node.inputs[1]) if x in doublings and len(readers[x]) == 1 and _plain(node) else None
        if weight is None or weight.shape[2:] != (3, 3):
            nodes.append(node)
            continue
        small, y = doublings[x].inputs[0], node.outputs[0]
        nodes = [n for n in nodes if n is not doublings[x]]
        parts = []
        for a in (0, 1):
            for b in (0, 1):
                parts.append(graph.fresh(y))
                kernel = graph.constant(y, _folded(_folded(weight, 2, a), 3, b))
                pads: dict[str, Attribute] = {"kernel_shape": (2, 2), "pads": (1 - a, 1 - b, a, b)}
                nodes.append(Node("Conv", (small, kernel, *node.inputs[2:]), (parts[-1],), pads))
        beside = graph.fresh(y)
        nodes += [Node("Concat", tuple(parts), (beside,), {"axis": 1}), Node("DepthToSpace", (beside,), (y,), {"blocksize": 2})]
        found[y] = Parted(x, small, tuple(parts))
    graph.nodes[:] = nodes
    return found


def _folded(weight: np.ndarray, axis: int, phase: int) -> np.ndarray:
    """The weights along an axis that fall on one pixel, added."""
    one, two, three = np.moveaxis(weight, axis, 0)
    return np.ascontiguousarray(np.stack([one, two + three] if phase == 0 else [one + two, three], axis))


def _doubles(graph: Nodes, node: Node) -> bool:
    """Whether a node repeats every pixel twice in both directions."""
    if node.op != "Resize" or node.domain or len(node.inputs) != 3:
        return False
    told: dict[str, Attribute] = {
        "mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor",
    }  # fmt: skip
    told |= {name: value for name, value in node.attributes.items() if name in told}
    scales = graph.weight(node.inputs[2])
    return (
        told["mode"] == "nearest"
        and (told["coordinate_transformation_mode"], told["nearest_mode"]) in _REPEATS
        and "axes" not in node.attributes
        and scales is not None
        and scales.tolist() == _SCALES
    )


def _plain(node: Node) -> bool:
    """Whether a node is a convolution that keeps the size: of stride 1, one pixel of zeros around."""
    told = {"group": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (), "auto_pad": "NOTSET", **node.attributes}
    return (
        node.op == "Conv"
        and not node.domain
        and told["group"] == 1
        and told["strides"] == told["dilations"] == (1, 1)
        and told["pads"] == (1, 1, 1, 1)
        and told["auto_pad"] == "NOTSET"
    )
