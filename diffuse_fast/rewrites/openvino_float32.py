"""What stays in float32 where OpenVINO computes in bfloat16, which has 8 bits (``docs/runtimes.md`` has the figures).

The embedding of the time: 999 becomes 1000 and the angle of a sinusoid is off by up to two radians, which is most of a network's
error at large times. The first layer: near the data the noise is a small part of the sample, and most of it is lost where the
sample is rounded. Both are a handful of numbers, and cost nothing in float32.
"""

from __future__ import annotations

from typing import Any

_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}

# OpenVINO's mark on a node that keeps its precision can be written in a model's text, but not be made in Python.
_MARKED = """<?xml version="1.0"?><net name="mark" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="precise" version="0"/></rt_info><output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="out" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""


def keep_exact(core: Any, graph: Any, sample: str) -> None:
    """Mark all that sines and cosines are computed from, and the first layer. Shapes must be static.

    Args:
        core: OpenVINO's.
        graph: A model of it, to be changed.
        sample: Name of its input that takes the sample.
    """
    from openvino import opset13

    found: dict[str, Any] = {}
    waiting = [op for op in graph.get_ordered_ops() if op.get_type_name() in ("Sin", "Cos")]
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() not in found:
            found[op.get_friendly_name()] = op
            waiting += [op.input_value(i).get_node() for i in range(op.get_input_size())]
    for name, op in list(found.items()):
        if op.get_type_name() == "Unsqueeze":  # the plugin makes a Reshape of it, and loses the mark
            found[name] = opset13.reshape(op.input_value(0), list(op.output(0).shape), False)
            for target in list(op.output(0).get_target_inputs()):
                target.replace_source_output(found[name].output(0))
    marks = core.read_model(model=_MARKED.encode(), weights=b"").get_parameters()[0].get_rt_info()
    for op in [*found.values(), *_first_layers(graph.input(sample).get_node())]:
        for key, mark in marks.items():
            op.set_rt_info(mark, key)


def _first_layers(sample: Any) -> list[Any]:
    """The convolutions and products that a sample goes into first, with all that they read and the bias that follows."""
    found: list[Any] = []
    waiting, seen = [sample], set[str]()
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() in seen:
            continue
        seen.add(op.get_friendly_name())
        layer = op.get_type_name() in _LAYERS
        biased = [reader for reader in _readers(op) if reader.get_type_name() == "Add"] if layer else []
        if layer and [r.get_type_name() for r in _readers((biased or [op])[0])] == ["Add"]:
            continue  # the plugin of 2026.4 computes the sum with the layer, and fails where the other summand is in bfloat16
        found += [op, *(op.input_value(i).get_node() for i in range(op.get_input_size())), *biased]
        if not layer:
            waiting += _readers(op)
    return found


def _readers(op: Any) -> list[Any]:
    """What reads the values of an operation, and not just their shape."""
    readers = [target.get_node() for out in op.outputs() for target in out.get_target_inputs()]
    return [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
