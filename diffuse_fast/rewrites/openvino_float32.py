"""Keep the time embedding and the first layer in float32 where OpenVINO computes in bfloat16, which has 8 bits of precision.

The time embedding: time 999 rounds to 1000, and the angle of a sinusoid is off by up to two radians, which causes most of a
network's error at large times. The first layer: near the data the noise is a small part of the sample, and rounding the sample
loses most of it. Both are small, so float32 costs nothing. ``docs/runtimes.md`` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
_ATTRIBUTES = {"precise_0", "DisablePrecisionConversion_0"}

# OpenVINO's attribute of a node that keeps its precision can be read from a model's XML, but cannot be made in Python. Version
# 2026.4 reads "precise" as "not in float16" only, so bfloat16 is named too. Earlier versions ignore the second attribute.
_MARKED = """<?xml version="1.0"?><net name="mark" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="precise" version="0"/>
<attribute name="DisablePrecisionConversion" version="0" value="dynamic:bf16,f16"/></rt_info>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="out" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""


def keep_float32(core: Any, sample: str) -> Callable[[Any], bool]:
    """Return a pass over an ``openvino.Model`` with static shapes that keeps these nodes in float32.

    Args:
        core: An ``openvino.Core``.
        sample: Name of the input that takes the sample.
    """

    def run(graph: Any) -> bool:
        marks = core.read_model(model=_MARKED.encode(), weights=b"").get_parameters()[0].get_rt_info()
        nodes = [*_inputs_of_sinusoids(graph), *_first_layers(graph.input(sample).get_node())]
        for op in nodes:
            for key, mark in marks.items():
                op.set_rt_info(mark, key)
        return bool(nodes)

    return run


def rounded_layers(graph: Any, compiled: Any) -> list[str]:
    """Return the layers that :func:`keep_float32` marked and that OpenVINO computes in bfloat16 nevertheless.

    OpenVINO drops the attribute when a transformation replaces a node and does not copy it.

    Args:
        graph: The ``openvino.Model`` that was compiled.
        compiled: Its runtime model, ``CompiledModel.get_runtime_model()``.
    """
    marked = {
        op.get_friendly_name()
        for op in graph.get_ordered_ops()
        if op.get_type_name() in _LAYERS and not _ATTRIBUTES.isdisjoint(op.get_rt_info())
    }
    found: set[str] = set()
    for op in compiled.get_ordered_ops():
        info = op.get_rt_info()
        if str(info["runtimePrecision"].value) == "bf16":
            found.update(marked.intersection(str(info["originalLayersNames"].value).split(",")))
    return sorted(found)


def _inputs_of_sinusoids(graph: Any) -> list[Any]:
    """Return all sines and cosines, and all operations that they are computed from."""
    from openvino import opset13

    found: dict[str, Any] = {}
    waiting = [op for op in graph.get_ordered_ops() if op.get_type_name() in ("Sin", "Cos")]
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() not in found:
            found[op.get_friendly_name()] = op
            waiting += [op.input_value(i).get_node() for i in range(op.get_input_size())]
    for name, op in list(found.items()):
        if op.get_type_name() == "Unsqueeze":  # the plugin replaces it by a Reshape and drops the attribute
            found[name] = opset13.reshape(op.input_value(0), list(op.output(0).shape), False)
            for target in list(op.output(0).get_target_inputs()):
                target.replace_source_output(found[name].output(0))
    return list(found.values())


def _first_layers(sample: Any) -> list[Any]:
    """Return the first convolutions and matrix products after the sample, with their inputs and the bias that follows."""
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
            continue  # the plugin of 2026.4 fuses the sum into the layer, and fails if the other summand is bfloat16
        found += [op, *(op.input_value(i).get_node() for i in range(op.get_input_size())), *biased]
        if not layer:
            waiting += _readers(op)
    return found


def _readers(op: Any) -> list[Any]:
    """Return the operations that read the values of an operation, and not only their shape."""
    readers = [target.get_node() for out in op.outputs() for target in out.get_target_inputs()]
    return [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
