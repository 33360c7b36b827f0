"""What each layer costs if the values that go into it alone are rounded, from one session: a graph with a switch for every layer.

To build a session for each layer takes minutes for a large network; a call of one takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..artifact.document import Range
from ..model import Model
from ..onnx.graph import Graph, Node
from ..rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm
from ..rewrites.insert_qdq import fake_quantize
from .calibrate import Call, open_session, relative, run

NUMBERS = 2048  # of a call's output that are looked at: all that is asked is how the layers compare


def alone(model: Model, layers: Sequence[Node], ranges: Mapping[str, Range], calls: Sequence[Call]) -> dict[str, float]:
    """Of each layer, by its output's name, the relative error of a call with its input alone rounded: root mean square.

    Weights stay as they are: constant, which is what makes a call quick, and by far the smaller part (a channel of a weight has a
    scale of its own, a value has one).
    """
    graph = model.graph()
    switches = switched(graph, [node.outputs[0] for node in layers], ranges)
    group_norm_to_instance_norm(graph)
    session = open_session(graph)
    off = dict.fromkeys(switches.values(), np.array(False))
    # In the middle and at the end, where the noise is least: some layers cost there alone.
    few = [_first(call, -(-NUMBERS // call.output[0].size)) for call in (calls[len(calls) // 2], calls[-1])]
    exact = [run(session, [model.output], model, call, off)[0] for call in few]
    found = {}
    for name, switch in switches.items():
        on = {**off, switch: np.array(True)}
        errors = [relative(run(session, [model.output], model, c, on)[0], y) for c, y in zip(few, exact, strict=True)]
        found[name] = float(np.sqrt(np.mean(np.square(errors))))
    return found


def switched(graph: Graph, names: Sequence[str], ranges: Mapping[str, Range]) -> dict[str, str]:
    """Give each of these layers an input of the graph, a bool, that says whether its own input is rounded; their names."""
    chosen, nodes = set(names), list[Node]()
    switches: dict[str, str] = {}
    for node in graph.nodes:
        name = node.outputs[0]
        if name in chosen:
            switches[name] = graph.add_input(f"{name}/int8", "bool")
            x = node.inputs[0]
            rounded, either = graph.new_name(x), graph.new_name(x)
            nodes += [*fake_quantize(graph, x, rounded, ranges[x]), Node("Where", (switches[name], rounded, x), (either,))]
            node = graph.rewired(node, (either, *node.inputs[1:]), node.outputs)
        nodes.append(node)
    graph.nodes[:] = nodes
    return switches


def _first(call: Call, samples: int) -> Call:
    cond = {name: value[:samples] for name, value in call.cond.items()}
    return Call(call.x[:samples], call.t, cond, call.output[:samples])
