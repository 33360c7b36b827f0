"""The document of an artifact: what a sampler must know about a network, as JSON in the metadata of its ONNX file.

``docs/artifact.md`` describes each field. Version 2 adds ``plans``, version 3 ``quantization``, and version 4
``conditioning[].class_names``. A field that is missing, unknown, of the wrong type, or inconsistent with another field or with the
graph is an :class:`~diffuse_fast.errors.ArtifactError` that names it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import ArgumentError, ArtifactError, DiffuseFastError, PlanError, suggest
from ..onnx.header import Header, Value
from ..plans.plan import INPUT_SCALES, PREDICTION_TYPES, Plan
from ..schedule import Schedule

KEY = "diffuse_fast"  # of the entry in the file's metadata
FORMAT = "diffuse_fast.model"
VERSION = 1
# A later version is written only if a document uses its field, so that older readers can read the others.
VERSION_WITH_PLANS = 2
VERSION_WITH_QUANTIZATION = 3
VERSION_WITH_CLASS_NAMES = 4

CONVENTIONS = ("timestep", "sigma", "continuous", "log_snr", "c_noise")
VARIANCES = ("none", "learned", "learned_range")
TIME_DTYPES = ("int64", "int32", "float32")
SAMPLE_DTYPES = ("float32",)
LEARNED = "learned"  # solver name of a stored plan
CONDITIONING_DTYPES = ("int64", "int32", "float32", "bool")

MAX_ELEMENTS = 1 << 34  # of one sample: limit of the noise counter
MAX_TRAIN_TIMESTEPS = 1_000_000  # a schedule's tables are built when the file is loaded
MAX_RANK = 8

MAX_LAYERS = 100_000
MAX_CLASSES = 1 << 20  # calibration draws every class
MAX_VALUES = MAX_TRAIN_TIMESTEPS + 400_000  # of JSON; each becomes an object of about 100 bytes

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """An input of the network besides sample and time.

    Attributes:
        name: Its name, in the graph and as key of ``cond``.
        dtype: NumPy's name of its type.
        shape: Its shape for one sample; ``()`` is one number per sample.
        null: The value of every element that means "no condition", for classifier-free guidance; None if there is none.
        classes: Number of classes of a label, which are 0 to ``classes`` − 1; None for an input that is not a label.
        class_names: The names of the classes in order; None if they have no names.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    null: float | int | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None

    def to_json(self, *, names: bool) -> dict[str, Any]:
        """Return JSON, with or without the field ``class_names``."""
        fields = {**dataclasses.asdict(self), "shape": list(self.shape)}
        class_names = fields.pop("class_names")
        return {**fields, "class_names": class_names and list(class_names)} if names else fields


@dataclass(frozen=True, slots=True)
class Time:
    """The network's time input: its name, its time convention, and its dtype."""

    input: str = "t"
    convention: str = "timestep"
    dtype: str = "int64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a network computes in int8, found by ``df.quantize``.

    Attributes:
        layers: The layers that compute in int8, by the names of their outputs.
        ranges: Ranges (lo, hi) of the inputs and outputs of the layers, by name of value.
        relative_error: Measured error by runtime: root mean square of ‖y − y32‖/‖y32‖ over the calls y of the network on
            trajectories that were not used for calibration.
        frechet_distance: Fréchet distance to training images, of as many samples as there are held-out images, by ``float32`` and
            ``int8``; None if it was not measured.
        calibration: How the ranges were found, free-form.
    """

    layers: tuple[str, ...]
    ranges: dict[str, Range]
    relative_error: dict[str, float]
    frechet_distance: dict[str, float] | None = None
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON."""
        return {**dataclasses.asdict(self), "layers": list(self.layers), "ranges": {n: list(r) for n, r in self.ranges.items()}}


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """The description of a network in an artifact.

    Attributes:
        name: A short name.
        schedule: The noise schedule of the training. None only if the mapping of a foreign file does not give it.
        prediction_type: ``epsilon``, ``sample``, ``v_prediction``, ``flow`` or ``denoised``. None as above.
        time: Its time input.
        input: Name of the input that takes the sample.
        output: Name of the output that holds the prediction.
        shape: Shape of one sample.
        dtype: Type of the sample and the output in the graph.
        value_range: Range of the data in training, as ``(lo, hi)``; None for unbounded data, such as latents.
        input_scale: Scale of the network's input: ``none`` for the state alpha·x0 + sigma·ε, or ``1/alpha`` for
            x0 + (sigma/alpha)·ε. None only if the mapping of a foreign file does not give schedule or prediction_type.
        variance: ``none``, ``learned`` or ``learned_range``; with the last two the output has twice the channels.
        clip: Default range to clip the data prediction to; None for no clipping.
        conditioning: Its other inputs.
        training: Provenance, free-form.
        license: SPDX expression or any text; None if unknown.
        producer: The program that wrote the file.
        opset: Version of the operator set it uses.
        plans: Plans learned for the network, at most one per number of steps, for ``solver="learned"``.
        quantization: What ``precision="int8"`` needs; None if the model was not quantized by ``df.quantize``.
    """

    name: str
    schedule: Schedule | None
    prediction_type: str | None
    time: Time = Time()
    input: str = "x"
    output: str = "output"
    shape: tuple[int, ...]
    dtype: str = "float32"
    value_range: Range | None = (-1.0, 1.0)
    input_scale: str | None = "none"
    variance: str = "none"
    clip: Range | None = None
    conditioning: tuple[Conditioning, ...] = ()
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    license: str | None = None
    producer: str = ""
    opset: int = 0
    plans: tuple[Plan, ...] = ()
    quantization: Quantization | None = None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the network's output for one sample: that of the sample, with doubled channels for a learned variance."""
        return output_shape(self.shape, self.variance)

    def to_json(self) -> dict[str, Any]:
        """Return the document as JSON, in the lowest version that has its fields."""
        if self.schedule is None or self.prediction_type is None or self.input_scale is None:
            raise ArtifactError("a document needs a schedule, a prediction_type and an input_scale.")
        named = any(c.class_names is not None for c in self.conditioning)
        version, more = VERSION, dict[str, Any]()
        if self.plans or self.quantization is not None or named:
            version, more["plans"] = VERSION_WITH_PLANS, [json.loads(plan.to_json()) for plan in self.plans]
        if self.quantization is not None or named:
            version = VERSION_WITH_CLASS_NAMES if named else VERSION_WITH_QUANTIZATION
            more["quantization"] = None if self.quantization is None else self.quantization.to_json()
        return {
            "format": FORMAT,
            "version": version,
            "name": self.name,
            "schedule": self.schedule.to_json(),
            "prediction_type": self.prediction_type,
            "time": dataclasses.asdict(self.time),
            "sample": {
                "input": self.input,
                "output": self.output,
                "shape": list(self.shape),
                "dtype": self.dtype,
                "value_range": None if self.value_range is None else list(self.value_range),
            },
            "input_scale": self.input_scale,
            "variance": self.variance,
            "clip": None if self.clip is None else list(self.clip),
            "conditioning": [c.to_json(names=named) for c in self.conditioning],
            "training": self.training,
            "license": self.license,
            "producer": self.producer,
            "opset": self.opset,
            **more,
        }


def output_shape(shape: tuple[int, ...], variance: str) -> tuple[int, ...]:
    """Return the shape of a network's output for one sample; a learned variance doubles the channels."""
    return shape if variance == "none" else (2 * shape[0], *shape[1:])


def clear_input_scale(given: str | None, prediction_type: str, *, scaled: bool) -> str:
    """Return the input scale of a network: the given one, or ``none`` if that is unambiguous.

    Args:
        given: The caller's value, or None.
        prediction_type: What the network predicts.
        scaled: Whether the schedule scales the state while sampling, such as EDM's c_in·x.

    Raises:
        ArgumentError: the value is unknown, or it is ambiguous and not given.
    """
    if given is not None and given not in INPUT_SCALES:
        raise ArgumentError(f"input_scale is {given!r}.{suggest(str(given), INPUT_SCALES)}")
    if given is None and prediction_type == "denoised" and scaled:
        raise ArgumentError(
            "input_scale is not known: this schedule scales the state to alpha·x0 + sigma·ε (EDM's c_in·x), and a network that "
            "predicts 'denoised' may take another scale. Give input_scale='1/alpha' if it takes x0 + (sigma/alpha)·ε, as EDM's "
            "denoiser D(x; sigma) does, or input_scale='none' if it takes the scaled state."
        )
    return given or "none"


# ---- from JSON ----------------------------------------------------------------------------------


def parse(text: str) -> Document:
    """Parse the document in a file's metadata.

    Raises:
        ArtifactError: the text is not JSON, or not a valid document; the message names the field.
    """
    document = build(_load(text))
    check_schedule(document)
    return document


def build(raw: Any) -> Document:
    """Build a document from a JSON value. Checks each field, then the fields against each other.

    Raises:
        ArtifactError: the value is not a valid document; the message names the field.
    """
    top = _Object(raw, "")
    if top.raw.get("format") != FORMAT:
        _fail("format", top.raw.get("format"), repr(FORMAT))
    version = top.raw.get("version")
    if type(version) is not int or not VERSION <= version <= VERSION_WITH_CLASS_NAMES:
        _fail("version", version, f"{VERSION} to {VERSION_WITH_CLASS_NAMES}, which this version of diffuse_fast can read")
    top.only(
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
    )
    time = _Object(top.take("time"), "time")
    time.only("input", "convention", "dtype")
    sample = _Object(top.take("sample"), "sample")
    sample.only("input", "output", "shape", "dtype", "value_range")
    document = Document(
        name=top.text("name"),
        schedule=schedule_from(top.take("schedule")),
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
        conditioning=conditioning_from(top.take("conditioning"), names=version >= VERSION_WITH_CLASS_NAMES),
        training=_Object(top.take("training"), "training").raw,
        license=None if top.take("license") is None else top.text("license", empty=True),
        producer=top.text("producer", empty=True),
        opset=top.integer("opset", 1, 1 << 31),
        plans=plans_from(top.raw.get("plans", [])),
        quantization=_quantization(top, version),
    )
    check(document)
    return document


def schedule_from(raw: Any) -> Schedule:
    """Build the schedule from a document's field ``schedule``."""
    fields = _Object(raw, "schedule")
    if "num_train_timesteps" in fields.raw:
        fields.integer("num_train_timesteps", 1, MAX_TRAIN_TIMESTEPS)
    try:
        return Schedule.from_json(raw)
    except (DiffuseFastError, RecursionError) as error:
        raise ArtifactError(f"the model's field 'schedule' is invalid: {error}") from None


def _quantization(top: _Object, version: int) -> Quantization | None:
    """Build the quantization, if the version has the field. It may be null from version 4 on."""
    if version < VERSION_WITH_QUANTIZATION or (version >= VERSION_WITH_CLASS_NAMES and top.take("quantization") is None):
        return None
    return quantization_from(top.take("quantization"))


def conditioning_from(raw: Any, *, names: bool = False) -> tuple[Conditioning, ...]:
    """Build the conditioning inputs from a document's field ``conditioning``; with ``names`` it has the field ``class_names``."""
    if not isinstance(raw, list | tuple):
        _fail("conditioning", raw, "a list of inputs")
    inputs = []
    for i, item in enumerate(raw):
        fields = _Object(item, f"conditioning[{i}]")
        fields.only("name", "dtype", "shape", "null", "classes", *(("class_names",) if names else ()))
        one = Conditioning(
            name=fields.text("name"),
            dtype=fields.one_of("dtype", CONDITIONING_DTYPES),
            shape=fields.shape("shape", scalar=True),
            null=fields.number_or_none("null"),
            classes=None if fields.take("classes") is None else fields.integer("classes", 1, MAX_CLASSES),
            class_names=_class_names(fields) if names else None,
        )
        inputs.append(one)
    return tuple(inputs)


def _class_names(fields: _Object) -> tuple[str, ...] | None:
    given = fields.take("class_names")
    if given is None:
        return None
    classes, where = fields.take("classes"), fields.path("class_names")
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name for name in given):
        _fail(where, given, "a list of names, or null")
    if len(given) != classes:
        _fail(where, given, f"a list with one name for each of the {classes} classes")
    if len(set(given)) < len(given):
        _fail(where, given, "a list without duplicates")
    return tuple(given)


def plans_from(raw: Any) -> tuple[Plan, ...]:
    """Build the plans from a document's field ``plans``."""
    if not isinstance(raw, list | tuple):
        _fail("plans", raw, "a list of plans")
    plans = []
    for i, item in enumerate(raw):
        try:
            plans.append(Plan.from_json(json.dumps(item)))
        except PlanError as error:
            raise ArtifactError(f"the model's field 'plans[{i}]' is invalid: {error}") from None
    return tuple(plans)


def quantization_from(raw: Any) -> Quantization:
    """Build the quantization from a document's field ``quantization``."""
    top = _Object(raw, "quantization")
    top.only("layers", "ranges", "relative_error", "frechet_distance", "calibration")
    layers = top.take("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS or not all(isinstance(n, str) and n for n in layers):
        _fail("quantization.layers", layers, f"a list of 1 to {MAX_LAYERS} names of values")
    if len(set(layers)) < len(layers):
        _fail("quantization.layers", layers, "a list without duplicates")
    ranges = _Object(top.take("ranges"), "quantization.ranges")
    errors = _Object(top.take("relative_error"), "quantization.relative_error")
    distances = None
    if top.take("frechet_distance") is not None:
        distances = _Object(top.take("frechet_distance"), "quantization.frechet_distance")
        distances.only("float32", "int8")
    return Quantization(
        layers=tuple(layers),
        ranges={name: ranges.pair(name) for name in ranges.raw},
        relative_error={name: errors.number(name) for name in errors.raw},
        frechet_distance=None if distances is None else {name: distances.number(name) for name in distances.raw},
        calibration=_Object(top.take("calibration"), "quantization.calibration").raw,
    )


def check(document: Document) -> None:
    """Check that the fields of a document agree with each other.

    Raises:
        ArtifactError: two fields contradict each other; the message names them.
    """
    if math.prod(document.shape) > MAX_ELEMENTS:
        _fail("sample.shape", list(document.shape), f"at most {MAX_ELEMENTS} elements")
    if document.time.convention != "timestep" and document.time.dtype != "float32":
        _fail("time.dtype", document.time.dtype, f"'float32' for the convention {document.time.convention!r}")
    names = [document.input, document.time.input, *(c.name for c in document.conditioning)]
    if len(set(names)) < len(names):
        raise ArtifactError(f"the model's inputs must have different names; 'sample', 'time' and 'conditioning' name {names}.")
    for c in document.conditioning:
        where = f"conditioning[{c.name!r}]"
        if c.null is not None and c.dtype != "float32":
            limit = {"bool": 1, "int32": (1 << 31) - 1, "int64": (1 << 63) - 1}[c.dtype]
            if c.null != int(c.null) or not (0 if c.dtype == "bool" else -limit) <= c.null <= limit:
                _fail(f"{where}.null", c.null, f"a value of its dtype {c.dtype}")
        if c.classes is not None and (c.shape != () or not c.dtype.startswith("int")):
            _fail(f"{where}.classes", c.classes, "null: only an integer with shape [] is a label")
    for i, plan in enumerate(document.plans):
        _check_plan(f"plans[{i}]", plan, document)
    counts = [plan.steps for plan in document.plans]
    if len(set(counts)) < len(counts):
        raise ArtifactError(
            f"the model's field 'plans' has plans with {counts} steps; there must be at most one for each number of steps."
        )


def _check_plan(where: str, plan: Plan, document: Document) -> None:
    """Check that a sampler can run a stored plan on this network."""
    if plan.solver != LEARNED:
        _fail(f"{where}.solver", plan.solver, f"{LEARNED!r}; plans of other solvers are not stored")
    if plan.prediction_type != document.prediction_type:
        _fail(f"{where}.prediction_type", plan.prediction_type, f"{document.prediction_type!r}, that of the model")
    if plan.steps != len(plan.rows):  # the number of steps that a user asks for must be the number that runs
        _fail(f"{where}.steps", plan.steps, f"{len(plan.rows)}, the number of its rows: a learned plan has one for each step")
    if plan.nfe == 0 or any(row.g != (1.0,) for row in plan.rows):
        raise ArtifactError(f"the model's field {where!r} must have network calls, and no guidance, which the sampler adds.")
    if any(row.log_s is not None for row in plan.rows) and document.variance == "none":
        raise ArtifactError(f"the model's field {where!r} uses a learned variance, but the field 'variance' is 'none'.")
    convention = dict(plan.options).get("time_convention", document.time.convention)
    if convention != document.time.convention:
        _fail(f"{where}.options.time_convention", convention, f"{document.time.convention!r}, that of the model")
    last = getattr(document.schedule, "num_train_timesteps", math.inf) if document.time.convention == "timestep" else math.inf
    for t in plan.timesteps.tolist():
        if document.time.dtype != "float32" and t != int(t):
            _fail(f"{where}.rows[].timestep", t, f"an integer, because the model's time is {document.time.dtype}")
        if document.time.convention == "timestep" and not 0.0 <= t < last:
            _fail(f"{where}.rows[].timestep", t, f"from 0 to {last - 1}, the schedule's last")


def check_schedule(document: Document) -> None:
    """Check that the schedule's family has the document's prediction type and time convention.

    Raises:
        ArtifactError: it does not have them, or they are missing; the message names the field.
    """
    schedule = document.schedule
    if schedule is None:
        raise ArtifactError("the model's field 'schedule' is missing.")
    family = f"for a schedule of the family {schedule.family}"
    if document.prediction_type not in schedule.prediction_types:
        _fail("prediction_type", document.prediction_type, f"one of {', '.join(schedule.prediction_types)} {family}")
    if document.time.convention not in schedule.time_conventions:
        _fail("time.convention", document.time.convention, f"one of {', '.join(schedule.time_conventions)} {family}")


# ---- against the graph --------------------------------------------------------------------------


def check_graph(document: Document, header: Header) -> None:
    """Check that a document describes the graph of its file.

    Raises:
        ArtifactError: an input or output is missing, not described, of another type or shape, or its batch is fixed.
    """
    inputs = {v.name: v for v in header.inputs}
    outputs = {v.name: v for v in header.outputs}

    x = _find(inputs, document.input, "sample.input", "input")
    _check_value(x, "sample", document.dtype, document.shape)
    t = _find(inputs, document.time.input, "time.input", "input")
    if t.dtype != document.time.dtype:
        _fail("time.dtype", document.time.dtype, f"{t.dtype!r}, the type of the graph's input {t.name!r}")
    if t.shape is None or len(t.shape) > 1 or (t.shape and isinstance(t.shape[0], int) and t.shape[0] != 1):
        _fail("time.input", t.name, f"an input of shape [batch], [1] or []; in the graph it has the shape {_shape(t)}")
    for c in document.conditioning:
        where = f"conditioning[{c.name!r}]"
        _check_value(_find(inputs, c.name, f"{where}.name", "input"), where, c.dtype, c.shape)
    spare = set(inputs) - {document.input, document.time.input} - {c.name for c in document.conditioning}
    if spare:
        raise ArtifactError(
            f"the graph has inputs that the model's 'sample', 'time' and 'conditioning' do not name: "
            f"{', '.join(map(repr, sorted(spare)))}. A sampler needs to know their values."
        )
    output = _find(outputs, document.output, "sample.output", "output")
    _check_value(output, "sample.output", document.dtype, document.output_shape, variance=document.variance)
    if document.opset != header.opset:
        _fail("opset", document.opset, f"{header.opset}, which the graph imports")


def _find(values: dict[str, Value], name: str, where: str, kind: str) -> Value:
    if name not in values:
        _fail(where, name, f"an {kind} of the graph, which has {', '.join(map(repr, values)) or 'none'}")
    return values[name]


def _check_value(value: Value, where: str, dtype: str, shape: tuple[int, ...], variance: str = "none") -> None:
    if value.dtype != dtype:
        _fail(f"{where}.dtype", dtype, f"{value.dtype!r}, the type of {value.name!r} in the graph")
    dims = value.shape
    if dims is None or len(dims) != len(shape) + 1:
        _fail(f"{where}.shape", list(shape), f"the shape of {value.name!r} in the graph without its batch: {_shape(value)}")
    if isinstance(dims[0], int):
        raise ArtifactError(
            f"the graph fixes the batch of {value.name!r} at {dims[0]}; it must be dynamic. Export the network again with "
            f"df.export, or with a dynamic first dimension."
        )
    if any(isinstance(d, int) and d != s for d, s in zip(dims[1:], shape, strict=True)):
        doubled = "" if variance == "none" else f" (the channels are doubled by the field 'variance', {variance!r})"
        _fail(f"{where}.shape", list(shape), f"{_shape(value)} without its batch, as the graph says of {value.name!r}{doubled}")


def _shape(value: Value) -> str:
    if value.shape is None:
        return "an unknown rank"
    return "[" + ", ".join(str(d) if d != "" else "?" for d in value.shape) + "]"


# ---- fields -------------------------------------------------------------------------------------


class _Object:
    """A JSON object with checked access to its fields. Errors name the field by its path."""

    def __init__(self, raw: Any, where: str):
        if not isinstance(raw, dict):
            if not where:
                raise ArtifactError("the model's document must be a JSON object.")
            _fail(where, raw, "an object")
        self.raw: dict[str, Any] = raw
        self._where = where

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def only(self, *names: str) -> None:
        for name in names:
            if name not in self.raw:
                raise ArtifactError(f"the model's document lacks the field {self.path(name)!r}.")
        for name in self.raw:
            if name not in names:
                raise ArtifactError(f"the model's document has an unknown field {self.path(name)[:100]!r}.")

    def take(self, name: str) -> Any:
        return self.raw[name]

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self.raw[name]
        if not isinstance(value, str) or not (value or empty):
            _fail(self.path(name), value, "a string")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.raw[name]
        if not isinstance(value, str) or value not in choices:
            _fail(self.path(name), value, f"one of {', '.join(choices)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.raw[name]
        if type(value) is not int or not low <= value <= high:
            _fail(self.path(name), value, f"an integer from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        value = self.raw[name]
        if not _finite(value):
            _fail(self.path(name), value, "a finite number")
        return float(value)

    def number_or_none(self, name: str) -> int | float | None:
        value = self.raw[name]
        if value is not None and not _finite(value):
            _fail(self.path(name), value, "a finite number or null")
        return value

    def range(self, name: str) -> Range | None:
        return None if self.raw[name] is None else self.pair(name, ", or null")

    def pair(self, name: str, more: str = "") -> Range:
        value = self.raw[name]
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_finite, value)) or value[0] >= value[1]:
            _fail(self.path(name), value, f"a pair of numbers [lo, hi] with lo < hi{more}")
        return float(value[0]), float(value[1])

    def shape(self, name: str, *, scalar: bool = False) -> tuple[int, ...]:
        value = self.raw[name]
        least = 0 if scalar else 1
        if (
            not isinstance(value, list | tuple)
            or not least <= len(value) <= MAX_RANK
            or not all(type(n) is int and 0 < n <= MAX_ELEMENTS for n in value)
        ):
            _fail(self.path(name), value, f"a list of {least} to {MAX_RANK} positive integers")
        return tuple(value)


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1 << 63 if isinstance(value, int) else math.isfinite(value)


def _fail(where: str, given: Any, expected: str) -> NoReturn:
    # reprlib, because the value may have any size and depth.
    raise ArtifactError(f"the model's field {where!r} is {reprlib.repr(given)}; it must be {expected}.")


def _load(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a key is given twice")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    if (values := sum(map(text.count, ",[{"))) > MAX_VALUES:
        raise ArtifactError(f"the metadata {KEY!r} of the file have {values} values; at most {MAX_VALUES} are allowed.")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the metadata {KEY!r} of the file are not JSON: {str(error)[:200]}.") from None
