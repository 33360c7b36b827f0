"""The document of an export, from the arguments of ``df.export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__, hints
from ..artifact import document as documents
from ..artifact.check_document import check_schedule
from ..artifact.document import Document, Time
from ..artifact.read_document import build
from ..errors import ArgumentError, ArgumentTypeError, ArtifactError, suggest
from ..plans.conventions import PREDICTION_TYPES
from ..schedule import Schedule

OPSETS = (23, 21)  # in the order in which they are tried


def make_document(
    name: str,
    shape: Any,
    schedule: Any,
    prediction_type: Any,
    conditioning: Any,
    convention: str | None,
    time_dtype: str | None,
    value_range: Any,
    clip: Any,
    variance: str,
    input_scale: str | None,
    training: Any,
    license: str | None,
) -> Document:
    """The document of an export, checked.

    Raises:
        ArgumentError, ArgumentTypeError: an argument cannot be used; the message names it.
    """
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(schedule).__name__}; it must be a df.Schedule.")
    if prediction_type not in PREDICTION_TYPES:
        tail = hints.of_prediction(prediction_type) + suggest(str(prediction_type), PREDICTION_TYPES)
        raise ArgumentError(f"prediction_type is {prediction_type!r}.{tail}")
    convention = schedule.time_conventions[0] if convention is None else convention
    integer = convention == "timestep" and schedule.family == "discrete"
    inputs = []
    for item in conditioning:
        if not isinstance(item, Mapping):
            raise ArgumentTypeError("conditioning must be a list of dicts, one per input.")
        inputs.append({"dtype": "int64", "shape": [], "null": None, "classes": None, "class_names": None, **item})
    named = any(item["class_names"] is not None for item in inputs)
    if not named:
        for item in inputs:
            del item["class_names"]
    raw = {
        "format": documents.FORMAT,
        "version": documents.VERSION_WITH_CLASS_NAMES if named else documents.VERSION,
        "name": name,
        "schedule": schedule.to_json(),
        "prediction_type": prediction_type,
        "time": {"input": Time().input, "convention": convention, "dtype": time_dtype or ("int64" if integer else "float32")},
        "sample": {
            "input": "x",
            "output": "output",
            "shape": [int(n) if isinstance(n, np.integer) else n for n in shape],
            "dtype": "float32",
            "value_range": value_range,
        },
        "input_scale": documents.clear_input_scale(input_scale, prediction_type, scaled=schedule.family == "edm"),
        "variance": variance,
        "clip": clip,
        "conditioning": inputs,
        "training": dict(training or {}),
        "license": license,
        "producer": f"diffuse_fast {__version__}",
        "opset": OPSETS[0],
        **({"plans": [], "quantization": None} if named else {}),
    }
    try:
        json.dumps(raw, allow_nan=False)
        document = build(raw)
        check_schedule(document)
        return document
    except ArtifactError as error:
        raise ArgumentError(str(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"training (or another argument) cannot be written as JSON: {error}.") from None
