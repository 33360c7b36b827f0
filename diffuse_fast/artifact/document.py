"""The document of an artifact: what a sampler must know about a network, as JSON in the metadata of its ONNX file.

``docs/artifact.md`` describes it field by field. Version 1 has exactly the fields below but ``plans``, which version 2 adds,
``quantization``, which version 3 adds, and ``conditioning[].class_names``, which version 4 adds: one that is missing, unknown, of
the wrong type or at odds with another or with the graph is an :class:`~diffuse_fast.errors.ArtifactError` that names it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import ArgumentError, ArtifactError, DiffuseFastError, PlanError, suggest
from ..onnx.header import Graph, Value
from ..plans.plan import INPUT_SCALES, PREDICTION_TYPES, Plan
from ..schedule import Schedule

KEY = "diffuse_fast"  # of the entry in the file's metadata
FORMAT = "diffuse_fast.model"
VERSION = 1
# Written only where there are such: older readers go on reading what they can.
VERSION_WITH_PLANS = 2
VERSION_WITH_QUANTIZATION = 3
VERSION_WITH_CLASS_NAMES = 4

CONVENTIONS = ("timestep", "sigma", "continuous", "log_snr", "c_noise")
VARIANCES = ("none", "learned", "learned_range")
TIME_DTYPES = ("int64", "int32", "float32")
SAMPLE_DTYPES = ("float32",)
LEARNED = "learned"  # the solver of a stored plan
CONDITIONING_DTYPES = ("int64", "int32", "float32", "bool")

MAX_ELEMENTS = 1 << 34  # of a sample: the noise counter's reach
MAX_TRAIN_TIMESTEPS = 1_000_000  # a schedule's tables are built when the file is loaded
MAX_RANK = 8

MAX_LAYERS = 100_000
MAX_CLASSES = 1 << 20  # every one of them is drawn for calibration
MAX_VALUES = MAX_TRAIN_TIMESTEPS + 400_000  # of JSON: each becomes an object of some 100 bytes

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """An input of the network besides sample and time.

    Attributes:
        name: Its name, in the graph and as key of ``cond``.
        dtype: NumPy's name of its type.
        shape: Its shape for one sample; ``()`` is one number per sample.
        null: The value that means "no condition" (every element), for classifier-free guidance; None if there is none.
        classes: Number of classes of a label, which are 0 to ``classes`` − 1; None for what is no label.
        class_names: The name of each class of a label, in their order; None where they have none.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    null: float | int | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None

    def to_json(self, *, names: bool) -> dict[str, Any]:
        """It as JSON, with the field ``class_names`` or without."""
        fields = {**dataclasses.asdict(self), "shape": list(self.shape)}
        given = fields.pop("class_names")
        return {**fields, "class_names": given and list(given)} if names else fields


@dataclass(frozen=True, slots=True)
class Time:
    """The network's time input: its name, what its numbers mean, and their dtype."""

    input: str = "t"
    convention: str = "timestep"
    dtype: str = "int64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a network computes in int8, found by ``df.quantize``.

    Attributes:
        layers: The layers that compute in int8, each by the name of its output.
        ranges: By name, the values that they round to 8 bits: inputs and outputs of the layers, as (lo, hi).
        relative_error: What that costs, by runtime: root mean square of ‖y − y32‖/‖y32‖ over the calls y of the network on
            trajectories that were not calibrated on.
        frechet_distance: Fréchet distance to training images of as many as are held out, by ``float32`` and ``int8``; None where
            it was not measured.
        calibration: How they were found, free-form.
    """

    layers: tuple[str, ...]
    ranges: dict[str, Range]
    relative_error: dict[str, float]
    frechet_distance: dict[str, float] | None = None
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """It as JSON."""
        return {**dataclasses.asdict(self), "layers": list(self.layers), "ranges": {n: list(r) for n, r in self.ranges.items()}}


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """What an artifact says about its network.

    Attributes:
        name: A short name.
        schedule: The noise schedule it was trained with. None only where a foreign file's mapping does not say.
        prediction_type: ``epsilon``, ``sample``, ``v_prediction``, ``flow`` or ``denoised``. None as above.
        time: Its time input.
        input: Name of the input that takes the sample.
        output: Name of the output that holds the prediction.
        shape: Shape of one sample.
        dtype: Type of sample and output at the graph's edge.
        value_range: The values data had in training, as ``(lo, hi)``; None for data without bounds, as latents.
        input_scale: What the network takes of the state: ``none``, the state alpha·x0 + sigma·ε itself, or ``1/alpha``,
            x0 + (sigma/alpha)·ε. None only where a foreign file's mapping leaves schedule or prediction_type open.
        variance: ``none``, ``learned`` or ``learned_range``; with the last two the output has twice the channels.
        clip: Where to clip the data prediction unless the user says otherwise; None for not at all.
        conditioning: Its other inputs.
        training: Provenance, free-form.
        license: SPDX expression or any text; None if not said.
        producer: What wrote the file.
        opset: Version of the operator set it uses.
        plans: Plans learned for it, at most one for each number of steps; ``solver="learned"`` takes them.
        quantization: What ``precision="int8"`` needs to know; None where ``df.quantize`` was not asked.
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
        """Shape of the network's output for one sample: that of the sample, channels doubled for a learned variance."""
        return output_shape(self.shape, self.variance)

    def to_json(self) -> dict[str, Any]:
        """The document as JSON, of the version this library writes."""
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
    """Shape of a network's output for one sample: that of the sample, channels doubled for a learned variance."""
    return shape if variance == "none" else (2 * shape[0], *shape[1:])


def clear_input_scale(given: str | None, prediction_type: str, *, scaled: bool) -> str:
    """The input scale of a network: the one that is given, else ``none`` where that is not in doubt.

    Args:
        given: What the caller says, or None.
        prediction_type: What the network predicts.
        scaled: Whether the schedule keeps the state on a scale of its own while sampling, as EDM's c_in·x.

    Raises:
        ArgumentError: it is unknown, or in doubt and not given.
    """
    if given is not None and given not in INPUT_SCALES:
        raise ArgumentError(f"input_scale is {given!r}.{suggest(str(given), INPUT_SCALES)}")
    if given is None and prediction_type == "denoised" and scaled:
        raise ArgumentError(
            "input_scale is not known: this schedule keeps the state as alpha·x0 + sigma·ε (EDM's c_in·x), and a network that "
            "predicts 'denoised' may take another. Say input_scale='1/alpha' if it takes x0 + (sigma/alpha)·ε, as EDM's denoiser "
            "D(x; sigma) does, or input_scale='none' if it takes the state as it is kept."
        )
    return given or "none"


# ---- from JSON ----------------------------------------------------------------------------------


def parse(text: str) -> Document:
    """The document in a file's metadata.

    Raises:
        ArtifactError: it is no JSON or no such document; the message names the field.
    """
    document = build(_load(text))
    check_schedule(document)
    return document


def build(raw: Any) -> Document:
    """The document in a JSON value: each field checked by itself, then against the others.

    Raises:
        ArtifactError: it is no such document; the message names the field.
    """
    top = _Object(raw, "")
    if top.raw.get("format") != FORMAT:
        _fail("format", top.raw.get("format"), repr(FORMAT))
    version = top.raw.get("version")
    if type(version) is not int or not VERSION <= version <= VERSION_WITH_CLASS_NAMES:
        _fail("version", version, f"{VERSION} to {VERSION_WITH_CLASS_NAMES}; this library reads no other")
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
        opset=top.whole("opset", 1, 1 << 31),
        plans=plans_from(top.raw.get("plans", [])),
        quantization=_quantization(top, version),
    )
    check(document)
    return document


def schedule_from(raw: Any) -> Schedule:
    """The schedule of a document's field ``schedule``."""
    fields = _Object(raw, "schedule")
    if "num_train_timesteps" in fields.raw:
        fields.whole("num_train_timesteps", 1, MAX_TRAIN_TIMESTEPS)
    try:
        return Schedule.from_json(raw)
    except (DiffuseFastError, RecursionError) as error:
        raise ArtifactError(f"the model's field 'schedule' cannot be used: {error}") from None


def _quantization(top: _Object, version: int) -> Quantization | None:
    """Of a version that has the field; with the class names of version 4 there may be none."""
    if version < VERSION_WITH_QUANTIZATION or (version >= VERSION_WITH_CLASS_NAMES and top.take("quantization") is None):
        return None
    return quantization_from(top.take("quantization"))


def conditioning_from(raw: Any, *, names: bool = False) -> tuple[Conditioning, ...]:
    """The conditioning inputs of a document's field ``conditioning``, of a version with the field ``class_names`` or without."""
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
            classes=None if fields.take("classes") is None else fields.whole("classes", 1, MAX_CLASSES),
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
        _fail(where, given, f"one name for each of the classes, of which there are {classes}")
    if len(set(given)) < len(given):
        _fail(where, given, "names of which none is said twice")
    return tuple(given)


def plans_from(raw: Any) -> tuple[Plan, ...]:
    """The plans of a document's field ``plans``."""
    if not isinstance(raw, list | tuple):
        _fail("plans", raw, "a list of plans")
    plans = []
    for i, item in enumerate(raw):
        try:
            plans.append(Plan.from_json(json.dumps(item)))
        except PlanError as error:
            raise ArtifactError(f"the model's field 'plans[{i}]' cannot be used: {error}") from None
    return tuple(plans)


def quantization_from(raw: Any) -> Quantization:
    """What a document's field ``quantization`` says."""
    top = _Object(raw, "quantization")
    top.only("layers", "ranges", "relative_error", "frechet_distance", "calibration")
    layers = top.take("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS or not all(isinstance(n, str) and n for n in layers):
        _fail("quantization.layers", layers, f"a list of 1 to {MAX_LAYERS} names of values")
    if len(set(layers)) < len(layers):
        _fail("quantization.layers", layers, "names of which none is said twice")
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
    """Whether the fields of a document agree with one another.

    Raises:
        ArtifactError: two fields contradict each other; the message names them.
    """
    if math.prod(document.shape) > MAX_ELEMENTS:
        _fail("sample.shape", list(document.shape), f"at most {MAX_ELEMENTS} elements")
    if document.time.convention != "timestep" and document.time.dtype != "float32":
        _fail("time.dtype", document.time.dtype, f"'float32' for the convention {document.time.convention!r}")
    names = [document.input, document.time.input, *(c.name for c in document.conditioning)]
    if len(set(names)) < len(names):
        raise ArtifactError(f"the model's inputs must have different names; 'sample', 'time' and 'conditioning' say {names}.")
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
        raise ArtifactError(f"the model's field 'plans' has plans of {counts} steps; one for each number of steps is possible.")


def _check_plan(where: str, plan: Plan, document: Document) -> None:
    """Whether a stored plan is one that a sampler can run on this network."""
    if plan.solver != LEARNED:
        _fail(f"{where}.solver", plan.solver, f"{LEARNED!r}; others are not stored, but made")
    if plan.prediction_type != document.prediction_type:
        _fail(f"{where}.prediction_type", plan.prediction_type, f"{document.prediction_type!r}, as the model's own")
    if plan.steps != len(plan.rows):  # what a sampler is asked for is what it runs
        _fail(f"{where}.steps", plan.steps, f"{len(plan.rows)}, the number of its rows: a learned plan has one for each step")
    if plan.nfe == 0 or any(row.g != (1.0,) for row in plan.rows):
        raise ArtifactError(f"the model's field {where!r} must call the network, without guidance: a sampler adds that.")
    if any(row.log_s is not None for row in plan.rows) and document.variance == "none":
        raise ArtifactError(f"the model's field {where!r} has a learned noise, and the field 'variance' says 'none'.")
    told = dict(plan.options).get("time_convention", document.time.convention)
    if told != document.time.convention:
        _fail(f"{where}.options.time_convention", told, f"{document.time.convention!r}, as the model's own")
    last = getattr(document.schedule, "num_train_timesteps", math.inf) if document.time.convention == "timestep" else math.inf
    for t in plan.timesteps.tolist():
        if document.time.dtype != "float32" and t != int(t):
            _fail(f"{where}.rows[].timestep", t, f"whole: the model's time is {document.time.dtype}")
        if document.time.convention == "timestep" and not 0.0 <= t < last:
            _fail(f"{where}.rows[].timestep", t, f"from 0 to {last - 1}, the schedule's last")


def check_schedule(document: Document) -> None:
    """Whether a document's prediction type and time convention are such as its schedule's family has.

    Raises:
        ArtifactError: they are not, or are not said; the message names the field.
    """
    schedule = document.schedule
    if schedule is None:
        raise ArtifactError("the model's field 'schedule' is missing.")
    family = f"of a schedule of the family {schedule.family}"
    if document.prediction_type not in schedule.prediction_types:
        _fail("prediction_type", document.prediction_type, f"one of {', '.join(schedule.prediction_types)}, {family}")
    if document.time.convention not in schedule.time_conventions:
        _fail("time.convention", document.time.convention, f"one of {', '.join(schedule.time_conventions)}, {family}")


# ---- against the graph --------------------------------------------------------------------------


def check_graph(document: Document, graph: Graph) -> None:
    """Whether a document describes the graph it came with.

    Raises:
        ArtifactError: an input or output is missing, unaccounted for, of another type or shape, or its batch is fixed.
    """
    inputs = {v.name: v for v in graph.inputs}
    outputs = {v.name: v for v in graph.outputs}

    x = _known(inputs, document.input, "sample.input", "input")
    _agree(x, "sample", document.dtype, document.shape)
    t = _known(inputs, document.time.input, "time.input", "input")
    if t.dtype != document.time.dtype:
        _fail("time.dtype", document.time.dtype, f"{t.dtype!r}, the type of the graph's input {t.name!r}")
    if t.shape is None or len(t.shape) > 1 or (t.shape and isinstance(t.shape[0], int) and t.shape[0] != 1):
        _fail("time.input", t.name, f"an input of shape [batch], [1] or []; the graph's has {_shape(t)}")
    for c in document.conditioning:
        where = f"conditioning[{c.name!r}]"
        _agree(_known(inputs, c.name, f"{where}.name", "input"), where, c.dtype, c.shape)
    spare = set(inputs) - {document.input, document.time.input} - {c.name for c in document.conditioning}
    if spare:
        raise ArtifactError(
            f"the graph has inputs that the model's 'sample', 'time' and 'conditioning' do not name: "
            f"{', '.join(map(repr, sorted(spare)))}. A sampler would not know what to give them."
        )
    output = _known(outputs, document.output, "sample.output", "output")
    _agree(output, "sample.output", document.dtype, document.output_shape, variance=document.variance)
    if document.opset != graph.opset:
        _fail("opset", document.opset, f"{graph.opset}, which the graph imports")


def _known(values: dict[str, Value], name: str, where: str, kind: str) -> Value:
    if name not in values:
        _fail(where, name, f"an {kind} of the graph, which has {', '.join(map(repr, values)) or 'none'}")
    return values[name]


def _agree(value: Value, where: str, dtype: str, shape: tuple[int, ...], variance: str = "none") -> None:
    if value.dtype != dtype:
        _fail(f"{where}.dtype", dtype, f"{value.dtype!r}, the type of {value.name!r} in the graph")
    dims = value.shape
    if dims is None or len(dims) != len(shape) + 1:
        _fail(f"{where}.shape", list(shape), f"the shape of {value.name!r} in the graph without its batch: {_shape(value)}")
    if isinstance(dims[0], int):
        raise ArtifactError(
            f"the graph fixes the batch of {value.name!r} at {dims[0]}; a sampler needs it dynamic. Export it again with "
            f"df.export, or with a dynamic first dimension."
        )
    if any(isinstance(d, int) and d != s for d, s in zip(dims[1:], shape, strict=True)):
        twice = "" if variance == "none" else f" (channels doubled by the field 'variance', {variance!r})"
        _fail(f"{where}.shape", list(shape), f"{_shape(value)} without its batch, as the graph says of {value.name!r}{twice}")


def _shape(value: Value) -> str:
    if value.shape is None:
        return "no known rank"
    return "[" + ", ".join(str(d) if d != "" else "?" for d in value.shape) + "]"


# ---- fields -------------------------------------------------------------------------------------


class _Object:
    """A JSON object, and how its fields are taken: each check names the field by its path."""

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
            _fail(self.path(name), value, "a text")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.raw[name]
        if not isinstance(value, str) or value not in choices:
            _fail(self.path(name), value, f"one of {', '.join(choices)}")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        value = self.raw[name]
        if type(value) is not int or not low <= value <= high:
            _fail(self.path(name), value, f"a whole number from {low} to {high}")
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
            _fail(self.path(name), value, f"a list of {least} to {MAX_RANK} positive whole numbers")
        return tuple(value)


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1 << 63 if isinstance(value, int) else math.isfinite(value)


def _fail(where: str, given: Any, expected: str) -> NoReturn:
    # reprlib: what was given may be of any size and depth.
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
        raise ArtifactError(f"the metadata {KEY!r} of the file have {values} values; at most {MAX_VALUES} are read.")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the metadata {KEY!r} of the file are not JSON: {str(error)[:200]}.") from None
