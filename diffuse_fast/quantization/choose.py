"""Which layers compute in int8: all but the first and last, then fewer until the error is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..artifact.document import Quantization, Range
from ..model import Model
from ..onnx.graph import Node
from ..rewrites.insert_qdq import channel_axis, quantizable_layers
from .calibrate import Call, Seen, relative_error
from .sensitivity import alone

TOLD = 3  # trials at where the sums of squares say


def candidates(model: Model) -> list[Node]:
    """The layers between the first that the sample passes and the last. Those that it does not pass embed time and conditioning:
    they cost nothing, and what they lose is lost everywhere."""
    graph = model.graph()
    able = {node.outputs[0]: node for node in quantizable_layers(graph)}
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
    model: Model,
    nodes: Sequence[Node],
    seen: Seen,
    calls: Sequence[Call],
    runtime: str,
    max_error: float,
    say: Callable[[str], object],
) -> list[Node]:
    """As much of the work as the error allows: those layers are left out first that cost most for what they compute.

    Errors of layers are near to independent, so that their squares add up: with each layer's alone it is known how many layers are
    too many before they are tried, and a few trials settle it.

    Args:
        model: The model in float32.
        nodes: The layers that may compute in int8.
        seen: Their values.
        calls: To measure on.
        runtime: To measure with.
        max_error: Relative error that all of them together may have: root mean square over the calls.
        say: Told what is done.
    """

    def error(chosen: Sequence[Node]) -> float:
        found = rms(relative_error(in_int8(model, chosen, seen.ranges), runtime, calls))
        say(f"{len(chosen)} layers in int8: relative error {found:.4f}")
        return found

    whole = error(nodes)
    if whole <= max_error:
        return list(nodes)
    cost = {name: found**2 for name, found in alone(model, nodes, seen.ranges, calls).items()}
    say(f"each layer alone: relative error {min(cost.values()) ** 0.5:.4f} to {max(cost.values()) ** 0.5:.4f}")
    work = multiply_adds(model, nodes, seen.sizes)
    order = sorted(nodes, key=lambda node: cost[node.outputs[0]] / work[node.outputs[0]])
    sums = np.concatenate([[0.0], np.cumsum([cost[node.outputs[0]] for node in order])])
    fewest, most = 0, len(order)  # with the first `fewest` the error is small enough, with `most` it is not
    known, at, trials = whole, most, 0
    while most - fewest > 1:
        told = np.searchsorted(sums, sums[at] * (max_error / max(known, 1e-30)) ** 2, side="right") - 1
        # As the sums tell; where they did not settle it, by halves.
        at = int(np.clip(told, fewest + 1, most - 1)) if trials < TOLD else (fewest + most) // 2
        trials += 1
        known = error(order[:at])
        fewest, most = (at, most) if known <= max_error else (fewest, at)
    kept = {node.outputs[0] for node in order[:fewest]}
    return [node for node in nodes if node.outputs[0] in kept]


def multiply_adds(model: Model, nodes: Sequence[Node], sizes: Mapping[str, int]) -> dict[str, int]:
    """Of each layer for one sample, by its output's name."""
    graph = model.graph()
    found = {}
    for node in nodes:
        weight = graph.weight(node.inputs[1])
        assert weight is not None  # that makes it a layer
        found[node.outputs[0]] = weight.size // weight.shape[channel_axis(node, weight)] * sizes[node.outputs[0]]
    return found


def rms(errors: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))
