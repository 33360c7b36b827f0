"""Choose the layers that compute in int8: all but the first and the last, then fewer until the error is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..artifact.document import Quantization, Range
from ..model import Model
from ..onnx.graph import Node
from ..rewrites.insert_qdq import channel_axis, quantizable_layers
from .calibrate import Calibration, Call, relative_error
from .sensitivity import errors_alone

GUIDED_TRIALS = 3  # trials at the number of layers that the sums of squares predict; then bisection


def candidates(model: Model) -> list[Node]:
    """Return the layers between the first and the last on the paths of the sample.

    Layers off these paths embed time and conditioning. They take no time, and their errors would affect the whole network.
    """
    graph = model.graph()
    quantizable = {node.outputs[0]: node for node in quantizable_layers(graph)}
    passed: dict[str, int] = {model.input: 0}  # values computed from the sample -> fewest layers on the way
    for node in graph.nodes:
        before = [passed[name] for name in node.inputs if name in passed]
        if before:
            for name in node.outputs:
                passed[name] = min(before) + (name in quantizable)
    makers = {name: node for node in graph.nodes for name in node.outputs}
    last: set[str] = set()
    waiting, done = [model.output], set[str]()
    while waiting:
        name = waiting.pop()
        if name in quantizable:
            last.add(name)
        elif name in makers and name not in done:
            done.add(name)
            waiting += makers[name].inputs
    return [node for name, node in quantizable.items() if name not in last and passed.get(node.inputs[0], 0) > 0]


def values(nodes: Sequence[Node]) -> list[str]:
    """Return the names of the values that layers read and write."""
    return list(dict.fromkeys(name for node in nodes for name in (node.inputs[0], node.outputs[0])))


def quantization_of(chosen: Sequence[Node], ranges: Mapping[str, Range]) -> Quantization:
    """Return the document's ``quantization`` of these layers, without the measured errors."""
    return Quantization(
        layers=tuple(node.outputs[0] for node in chosen), ranges={n: ranges[n] for n in values(chosen)}, relative_error={}
    )


def in_int8(model: Model, chosen: Sequence[Node], ranges: Mapping[str, Range]) -> Model:
    """Return the model with these layers in int8. No file is written."""
    return dataclasses.replace(model, quantization=quantization_of(chosen, ranges))


def choose(
    model: Model,
    nodes: Sequence[Node],
    calibration: Calibration,
    calls: Sequence[Call],
    runtime: str,
    max_error: float,
    say: Callable[[str], object],
) -> list[Node]:
    """Choose as much work as the error allows. Layers with the largest squared error per multiply-add are left out first.

    The errors of layers are nearly independent, so their squares add up. The errors of single layers predict how many layers are
    possible, and a few trials are enough.

    Args:
        model: The model in float32.
        nodes: The layers that may compute in int8.
        calibration: Ranges and sizes of their inputs and outputs.
        calls: Network calls to measure on.
        runtime: Runtime to measure with.
        max_error: Largest relative error of all chosen layers together, root mean square over the calls.
        say: Called with lines of progress.
    """

    def error(chosen: Sequence[Node]) -> float:
        found = rms(relative_error(in_int8(model, chosen, calibration.ranges), runtime, calls))
        say(f"{len(chosen)} layers in int8: relative error {found:.4f}")
        return found

    total = error(nodes)
    if total <= max_error:
        return list(nodes)
    cost = {name: found**2 for name, found in errors_alone(model, nodes, calibration.ranges, calls).items()}
    say(f"each layer alone: relative error {min(cost.values()) ** 0.5:.4f} to {max(cost.values()) ** 0.5:.4f}")
    work = multiply_adds(model, nodes, calibration.sizes)
    order = sorted(nodes, key=lambda node: cost[node.outputs[0]] / work[node.outputs[0]])
    sums = np.concatenate([[0.0], np.cumsum([cost[node.outputs[0]] for node in order])])
    fewest, most = 0, len(order)  # with the first `fewest` the error is small enough, with `most` it is not
    known, at, trials = total, most, 0
    while most - fewest > 1:
        predicted = np.searchsorted(sums, sums[at] * (max_error / max(known, 1e-30)) ** 2, side="right") - 1
        at = int(np.clip(predicted, fewest + 1, most - 1)) if trials < GUIDED_TRIALS else (fewest + most) // 2
        trials += 1
        known = error(order[:at])
        fewest, most = (at, most) if known <= max_error else (fewest, at)
    kept = {node.outputs[0] for node in order[:fewest]}
    return [node for node in nodes if node.outputs[0] in kept]


def multiply_adds(model: Model, nodes: Sequence[Node], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the multiply-adds of each layer for one sample, by the name of its output."""
    graph = model.graph()
    found = {}
    for node in nodes:
        weight = graph.weight(node.inputs[1])
        assert weight is not None  # as for every quantizable layer
        found[node.outputs[0]] = weight.size // weight.shape[channel_axis(node, weight)] * sizes[node.outputs[0]]
    return found


def rms(errors: Sequence[float]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))
