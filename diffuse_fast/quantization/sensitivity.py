"""Measure the error that each layer causes alone, with one session of a graph that has a switch for every layer.

Building a session per layer takes minutes for a large network; a call takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..artifact.document import Range
from ..model import Model
from ..onnx.graph import Graph, Node
from ..rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm
from ..rewrites.insert_qdq import fake_quantize
from .calibrate import Call, open_session, relative_difference, run

NUMBERS = 2048  # elements of a call's output that are compared; enough to rank the layers


def errors_alone(model: Model, layers: Sequence[Node], ranges: Mapping[str, Range], calls: Sequence[Call]) -> dict[str, float]:
    """Return the root-mean-square relative error of calls in which only the input of one layer is quantized, by the layer's output.

    Weights are not quantized. They cause a much smaller error, because each channel has its own scale, and constants keep the calls
    fast.
    """
    graph = model.graph()
    switches = insert_switches(graph, [node.outputs[0] for node in layers], ranges)
    group_norm_to_instance_norm(graph)
    session = open_session(graph)
    off = dict.fromkeys(switches.values(), np.array(False))
    # In the middle and at the end, where the noise is smallest: some layers matter only there.
    few = [_first(call, -(-NUMBERS // call.output[0].size)) for call in (calls[len(calls) // 2], calls[-1])]
    exact = [run(session, [model.output], model, call, off)[0] for call in few]
    found = {}
    for name, switch in switches.items():
        on = {**off, switch: np.array(True)}
        errors = [relative_difference(run(session, [model.output], model, c, on)[0], y) for c, y in zip(few, exact, strict=True)]
        found[name] = float(np.sqrt(np.mean(np.square(errors))))
    return found


def insert_switches(graph: Graph, names: Sequence[str], ranges: Mapping[str, Range]) -> dict[str, str]:
    """Add a bool input to the graph for each layer, which selects whether the layer's input is quantized; return their names."""
    chosen, nodes = set(names), list[Node]()
    switches: dict[str, str] = {}
    for node in graph.nodes:
        name = node.outputs[0]
        if name in chosen:
            switches[name] = graph.add_input(f"{name}/int8", "bool")
            x = node.inputs[0]
            rounded, selected = graph.new_name(x), graph.new_name(x)
            nodes += [*fake_quantize(graph, x, rounded, ranges[x]), Node("Where", (switches[name], rounded, x), (selected,))]
            node = graph.rewired(node, (selected, *node.inputs[1:]), node.outputs)
        nodes.append(node)
    graph.nodes[:] = nodes
    return switches


def _first(call: Call, samples: int) -> Call:
    cond = {name: value[:samples] for name, value in call.cond.items()}
    return Call(call.x[:samples], call.t, cond, call.output[:samples])
