"""Read a document: from the text in a file's metadata, or from a JSON value."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import ArtifactError, DiffuseFastError, PlanError
from ..plans.conventions import INPUT_SCALES, PREDICTION_TYPES
from ..plans.plan import Plan
from ..schedule import Schedule
from .check_document import check, check_schedule
from .document import (
    CONDITIONING_DTYPES,
    CONVENTIONS,
    FORMAT,
    KEY,
    MAX_CLASSES,
    MAX_LAYERS,
    MAX_TRAIN_TIMESTEPS,
    MAX_VALUES,
    NATIVE_REFERENCES,
    SAMPLE_DTYPES,
    TIME_DTYPES,
    VARIANCES,
    VERSION,
    VERSION_WITH_CLASS_NAMES,
    VERSION_WITH_NATIVE,
    VERSION_WITH_PLANS,
    VERSION_WITH_QUANTIZATION,
    Conditioning,
    Document,
    Native,
    Quantization,
    Time,
)
from .fields import Fields, fail


def parse(text: str) -> Document:
    """The document in a file's metadata.

    Raises:
        ArtifactError: it is not JSON or not a valid document; the message names the field.
    """
    document = build(_loads(text))
    check_schedule(document)
    return document


def build(raw: Any) -> Document:
    """The document in a JSON value: each field is checked by itself, then against the others.

    Raises:
        ArtifactError: it is not a valid document; the message names the field.
    """
    top = Fields(raw, "")
    if top.raw.get("format") != FORMAT:
        fail("format", top.raw.get("format"), repr(FORMAT))
    version = top.raw.get("version")
    if type(version) is not int or not VERSION <= version <= VERSION_WITH_NATIVE:
        fail("version", version, f"{VERSION} to {VERSION_WITH_NATIVE}; the versions that this library reads")
    top.require_exactly(
        "format",
        "version",
        "name",
        "schedule",
        "prediction_type",
        "time",
        "sample",
        "input_scale",
        "variance",
        "clip",
        "conditioning",
        "training",
        "license",
        "producer",
        "opset",
        *(("plans",) if version >= VERSION_WITH_PLANS else ()),
        *(("quantization",) if version >= VERSION_WITH_QUANTIZATION else ()),
        *(("native",) if version >= VERSION_WITH_NATIVE else ()),
    )
    time = Fields(top.get("time"), "time")
    time.require_exactly("input", "convention", "dtype")
    sample = Fields(top.get("sample"), "sample")
    sample.require_exactly("input", "output", "shape", "dtype", "value_range")
    document = Document(
        name=top.text("name"),
        schedule=schedule_from(top.get("schedule")),
        prediction_type=top.one_of("prediction_type", PREDICTION_TYPES),
        time=Time(time.text("input"), time.one_of("convention", CONVENTIONS), time.one_of("dtype", TIME_DTYPES)),
        input=sample.text("input"),
        output=sample.text("output"),
        shape=sample.shape("shape"),
        dtype=sample.one_of("dtype", SAMPLE_DTYPES),
        value_range=sample.range("value_range"),
        input_scale=top.one_of("input_scale", INPUT_SCALES),
        variance=top.one_of("variance", VARIANCES),
        clip=top.range("clip"),
        conditioning=conditioning_from(top.get("conditioning"), names=version >= VERSION_WITH_CLASS_NAMES),
        training=Fields(top.get("training"), "training").raw,
        license=None if top.get("license") is None else top.text("license", empty=True),
        producer=top.text("producer", empty=True),
        opset=top.integer("opset", 1, 1 << 31),
        plans=plans_from(top.raw.get("plans", [])),
        quantization=_quantization(top, version),
        native=native_from(top.raw.get("native")),
    )
    check(document)
    return document


def schedule_from(raw: Any) -> Schedule:
    """The schedule in the field ``schedule`` of a document."""
    fields = Fields(raw, "schedule")
    if "num_train_timesteps" in fields.raw:
        fields.integer("num_train_timesteps", 1, MAX_TRAIN_TIMESTEPS)
    try:
        return Schedule.from_json(raw)
    except (DiffuseFastError, RecursionError) as error:
        raise ArtifactError(f"the model's field 'schedule' cannot be used: {error}") from None


def _quantization(top: Fields, version: int) -> Quantization | None:
    """The field ``quantization``; None in versions without it, and possibly in version 4."""
    if version < VERSION_WITH_QUANTIZATION or (version >= VERSION_WITH_CLASS_NAMES and top.get("quantization") is None):
        return None
    return quantization_from(top.get("quantization"))


def conditioning_from(raw: Any, *, names: bool = False) -> tuple[Conditioning, ...]:
    """The inputs in the field ``conditioning``; ``names`` says whether the version has ``class_names``."""
    if not isinstance(raw, list | tuple):
        fail("conditioning", raw, "a list of inputs")
    inputs = []
    for i, item in enumerate(raw):
        fields = Fields(item, f"conditioning[{i}]")
        fields.require_exactly("name", "dtype", "shape", "null", "classes", *(("class_names",) if names else ()))
        one = Conditioning(
            name=fields.text("name"),
            dtype=fields.one_of("dtype", CONDITIONING_DTYPES),
            shape=fields.shape("shape", scalar=True),
            null=fields.number_or_none("null"),
            classes=None if fields.get("classes") is None else fields.integer("classes", 1, MAX_CLASSES),
            class_names=_class_names(fields) if names else None,
        )
        inputs.append(one)
    return tuple(inputs)


def _class_names(fields: Fields) -> tuple[str, ...] | None:
    given = fields.get("class_names")
    if given is None:
        return None
    classes, where = fields.get("classes"), fields.path("class_names")
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name for name in given):
        fail(where, given, "a list of names, or null")
    if len(given) != classes:
        fail(where, given, f"one name for each of the {classes} classes")
    if len(set(given)) < len(given):
        fail(where, given, "different names")
    return tuple(given)


def plans_from(raw: Any) -> tuple[Plan, ...]:
    """The plans in the field ``plans`` of a document."""
    if not isinstance(raw, list | tuple):
        fail("plans", raw, "a list of plans")
    plans = []
    for i, item in enumerate(raw):
        try:
            plans.append(Plan.from_json(json.dumps(item)))
        except PlanError as error:
            raise ArtifactError(f"the model's field 'plans[{i}]' cannot be used: {error}") from None
    return tuple(plans)


def quantization_from(raw: Any) -> Quantization:
    """The field ``quantization`` of a document."""
    top = Fields(raw, "quantization")
    top.require_exactly("layers", "ranges", "relative_error", "frechet_distance", "calibration")
    layers = top.names("layers", MAX_LAYERS, least=1)
    ranges = Fields(top.get("ranges"), "quantization.ranges")
    errors = Fields(top.get("relative_error"), "quantization.relative_error")
    distances = None
    if top.get("frechet_distance") is not None:
        distances = Fields(top.get("frechet_distance"), "quantization.frechet_distance")
        distances.require_exactly("float32", "int8")
    return Quantization(
        layers=layers,
        ranges={name: ranges.pair(name) for name in ranges.raw},
        relative_error={name: errors.number(name) for name in errors.raw},
        frechet_distance=None if distances is None else {name: distances.number(name) for name in distances.raw},
        calibration=Fields(top.get("calibration"), "quantization.calibration").raw,
    )


def native_from(raw: Any) -> Native | None:
    """The field ``native`` of a document."""
    if raw is None:
        return None
    top = Fields(raw, "native")
    top.require_exactly("program_version", "program", "reference", "times", "errors", "float32_layers")
    times = top.numbers("times")
    errors = Fields(top.get("errors"), "native.errors")
    found = {precision: errors.numbers(precision) for precision in errors.raw}
    for precision, each in found.items():
        if len(each) != len(times) or min(each, default=0.0) < 0:
            fail(f"native.errors.{precision}", list(each), f"one error for each of the {len(times)} times")
    return Native(
        program_version=top.integer("program_version", 1, 1 << 31),
        program=top.text("program"),
        reference=top.one_of("reference", NATIVE_REFERENCES),
        times=times,
        errors=found,
        float32_layers=top.names("float32_layers", MAX_LAYERS),
    )


def _loads(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a key appears twice")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    if (values := sum(map(text.count, ",[{"))) > MAX_VALUES:
        raise ArtifactError(f"the metadata {KEY!r} of the file have {values} values; at most {MAX_VALUES} are read.")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the metadata {KEY!r} of the file are not JSON: {str(error)[:200]}.") from None
