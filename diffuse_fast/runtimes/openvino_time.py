"""The embedding of the time kept in float32 where OpenVINO computes in bfloat16.

bfloat16 has 8 bits: 999 becomes 1000 and the angle of a sinusoid is off by up to two radians, which is most of a network's error at
large times (``docs/runtimes.md``). What leads from the inputs to a sine or cosine is a handful of numbers a sample, so it costs
nothing in float32.
"""

from __future__ import annotations

from typing import Any

# OpenVINO's mark on a node that keeps its precision can be written in a model's text, but not be made in Python.
_MARKED = """<?xml version="1.0"?><net name="mark" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="precise" version="0"/></rt_info><output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="out" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""


def keep_exact(core: Any, graph: Any) -> None:
    """Mark all that sines and cosines are computed from. Shapes must be static.

    Args:
        core: OpenVINO's.
        graph: A model of it, to be changed.
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
    marked = core.read_model(model=_MARKED.encode(), weights=b"").get_parameters()[0]
    for op in found.values():
        for key, mark in marked.get_rt_info().items():
            op.set_rt_info(mark, key)
