"""The document of an .onnx file that does not describe itself, from a mapping that the user gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import hints
from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..onnx.header import Header, Value
from ..plans.conventions import PREDICTION_TYPES
from ..schedule import Schedule
from .check_document import check_schedule
from .document import FORMAT, VERSION, Document, clear_input_scale
from .read_document import build, schedule_from

_KEYS = ("sample", "time", "output", "schedule", "prediction_type", "shape", "convention", "value_range", "clip", "variance",
            "input_scale", "conditioning", "name", "license")  # fmt: skip


def document_from_mapping(mapping: Mapping[str, Any], header: Header, path: Path) -> Document:
    """The document of a file without one, from a mapping (see :func:`diffuse_fast.load`) and the graph.

    Raises:
        ArgumentError, ArgumentTypeError: the mapping is invalid, or lacks something that the graph does not determine.
        ArtifactError: mapping and graph contradict each other.
    """
    if not isinstance(mapping, Mapping):
        raise ArgumentTypeError(f"mapping is a {type(mapping).__name__}; it must be a dict.")
    for key in mapping:
        if key not in _KEYS:
            raise ArgumentError(f"mapping has an unknown key {key!r}.{suggest(str(key), _KEYS)}")
    inputs = {v.name: v for v in header.inputs}

    def name_of(key: str, names: list[str], default: str) -> str:
        name = mapping.get(key, default)
        if name not in names:
            raise ArgumentError(f"mapping[{key!r}] is {name!r}, but the graph has {', '.join(map(repr, names)) or 'none'}.")
        return name

    sample = name_of("sample", list(inputs), "sample")
    time = name_of("time", list(inputs), "timestep")
    outputs = [v.name for v in header.outputs]
    output = name_of("output", outputs, outputs[0] if len(outputs) == 1 else "")

    def static_shape(value: Value, where: str) -> list[int]:
        if value.shape is None or not all(isinstance(d, int) for d in value.shape[1:]):
            raise ArgumentError(f"the graph does not fix the shape of {value.name!r}; give it as mapping[{where}].")
        return list(value.shape[1:])  # type: ignore[arg-type]  # all are int, as checked

    given = mapping.get("conditioning", {})
    if not isinstance(given, Mapping) or not all(isinstance(v, Mapping) for v in given.values()):
        raise ArgumentTypeError("mapping['conditioning'] must be a dict from input names to dicts.")
    others = [v for v in header.inputs if v.name not in (sample, time)]
    if unknown := set(given) - {v.name for v in others}:
        raise ArgumentError(f"mapping['conditioning'] names {sorted(unknown)}; the graph has {[v.name for v in others]}.")
    conditioning = []
    for v in others:
        extra = dict(given.get(v.name, {}))
        shape = extra.pop("shape", None) or static_shape(v, f"'conditioning'][{v.name!r}]['shape'")
        conditioning.append({"name": v.name, "dtype": v.dtype, "shape": shape, "null": None, "classes": None, **extra})

    schedule = mapping.get("schedule")
    prediction_type = mapping.get("prediction_type")
    if prediction_type is not None and prediction_type not in PREDICTION_TYPES:
        tail = hints.of_prediction(prediction_type) + suggest(str(prediction_type), PREDICTION_TYPES)
        raise ArgumentError(f"mapping['prediction_type'] is {prediction_type!r}.{tail}")
    # The rest is checked as a document. Schedule and prediction type may be left to df.sample; placeholders stand for them here.
    known = schedule if isinstance(schedule, Schedule) else schedule_from(schedule or Schedule.linear().to_json())
    convention = mapping.get("convention", known.time_conventions[0])
    complete = schedule is not None and prediction_type is not None
    input_scale = clear_input_scale(
        mapping.get("input_scale"), prediction_type or "epsilon", scaled=complete and known.family == "edm"
    )
    raw = {
        "format": FORMAT,
        "version": VERSION,
        "name": mapping.get("name", path.stem),
        "schedule": known.to_json(),
        "prediction_type": prediction_type or "epsilon",
        "time": {"input": time, "convention": convention, "dtype": inputs[time].dtype},
        "sample": {
            "input": sample,
            "output": output,
            "shape": mapping["shape"] if "shape" in mapping else static_shape(inputs[sample], "'shape'"),
            "dtype": inputs[sample].dtype,
            "value_range": mapping.get("value_range"),
        },
        "input_scale": input_scale,
        "variance": mapping.get("variance", "none"),
        "clip": mapping.get("clip"),
        "conditioning": conditioning,
        "training": {},
        "license": mapping.get("license"),
        "producer": "",
        "opset": header.opset,
    }
    document = build(raw)
    if complete:
        check_schedule(document)
    return dataclasses.replace(
        document,
        schedule=None if schedule is None else document.schedule,
        prediction_type=prediction_type,
        input_scale=input_scale if complete else mapping.get("input_scale"),
    )
