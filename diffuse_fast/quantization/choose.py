"""Which layers compute in int8: all but the first and last, then fewer until the error is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..artifact.document import Quantization, Range
from ..artifact.nodes import Node, Nodes
from ..model import Model
from ..runtimes.quantized import layers
from .calibrate import Call, relative_error

FEW = 3  # calls on which a layer is judged alone


def candidates(model: Model) -> list[Node]:
    """The layers between the first that the sample passes and the last. Those that it does not pass embed time and conditioning:
    they cost nothing, and what they lose is lost everywhere."""
    graph = Nodes(model.path)
    able = {node.outputs[0]: node for node in layers(graph)}
    passed: dict[str, int] = {model.input: 0}  # values made of the sample -> the layers it has passed at least
    for node in graph.nodes:
        before = [passed[name] for name in node.inputs if name in passed]
        if before:
            for name in node.outputs:
                passed[name] = min(before) + (name in able)
    makers = {name: node for node in graph.nodes for name in node.outputs}
    last: set[str] = set()
    waiting, done = [model.output], set[str]()
    while waiting:
        name = waiting.pop()
        if name in able:
            last.add(name)
        elif name in makers and name not in done:
            done.add(name)
            waiting += makers[name].inputs
    return [node for name, node in able.items() if name not in last and passed.get(node.inputs[0], 0) > 0]


def values(nodes: Sequence[Node]) -> list[str]:
    """The values that layers in int8 read and write."""
    return list(dict.fromkeys(name for node in nodes for name in (node.inputs[0], node.outputs[0])))


def described(chosen: Sequence[Node], ranges: Mapping[str, Range]) -> Quantization:
    """What a document says of these layers in int8, but for what they cost."""
    return Quantization(
        layers=tuple(node.outputs[0] for node in chosen), ranges={n: ranges[n] for n in values(chosen)}, relative_error={}
    )


def in_int8(model: Model, chosen: Sequence[Node], ranges: Mapping[str, Range]) -> Model:
    """The model with these layers in int8, not yet written anywhere."""
    return dataclasses.replace(model, quantization=described(chosen, ranges))


def choose(
    model: Model, nodes: Sequence[Node], ranges: Mapping[str, Range], calls: Sequence[Call], runtime: str, max_error: float,
    say: Callable[[str], object],
) -> list[Node]:  # fmt: skip
    """As many layers as the error allows, those left out first that alone cost most.

    Args:
        model: The model in float32.
        nodes: The layers that may compute in int8.
        ranges: Of their values.
        calls: To measure on.
        runtime: To measure with.
        max_error: Relative error that all of them together may have: root mean square over the calls.
        say: Told what is done.
    """

    def error(chosen: Sequence[Node], on: Sequence[Call] = calls) -> float:
        return rms(relative_error(in_int8(model, chosen, ranges), runtime, on))

    whole = error(nodes)
    say(f"{len(nodes)} layers in int8: relative error {whole:.4f}")
    if whole <= max_error:
        return list(nodes)
    alone = {}
    few = calls[:: max(1, len(calls) // FEW)]  # their order is all that is asked
    for i, node in enumerate(nodes, 1):
        alone[node.outputs[0]] = error([node], few)
        say(f"{i} of {len(nodes)}, {node.outputs[0]} alone: {alone[node.outputs[0]]:.4f}")
    order = sorted(nodes, key=lambda node: alone[node.outputs[0]])
    fewest, most = 0, len(order)  # with the first `fewest` the error is small enough, with `most` it is not
    while most - fewest > 1:
        middle = (fewest + most) // 2
        now = error(order[:middle])
        say(f"{middle} layers in int8: relative error {now:.4f}")
        fewest, most = (middle, most) if now <= max_error else (fewest, middle)
    kept = {node.outputs[0] for node in order[:fewest]}
    return [node for node in nodes if node.outputs[0] in kept]


def rms(errors: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))
