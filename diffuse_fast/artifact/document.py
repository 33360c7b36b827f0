"""The document of an artifact: what a sampler must know about a network, as JSON in the metadata of its ONNX file.

``docs/artifact.md`` describes it field by field. Version 2 adds ``plans`` to the fields below, version 3 ``quantization``,
version 4 ``conditioning[].class_names`` and version 5 ``native``. ``read_document.py`` reads it; ``check_document.py`` and
``check_graph.py`` check it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, ArtifactError, suggest
from ..plans.conventions import INPUT_SCALES
from ..plans.plan import Plan
from ..schedule import Schedule

KEY = "diffuse_fast"  # of the entry in the metadata of the file
FORMAT = "diffuse_fast.model"
VERSION = 1
# Written only if the document needs them, so that older readers can read the other documents.
VERSION_WITH_PLANS = 2
VERSION_WITH_QUANTIZATION = 3
VERSION_WITH_CLASS_NAMES = 4
VERSION_WITH_NATIVE = 5

CONVENTIONS = ("timestep", "sigma", "continuous", "log_snr", "c_noise")
VARIANCES = ("none", "learned", "learned_range")
TIME_DTYPES = ("int64", "int32", "float32")
SAMPLE_DTYPES = ("float32",)
NATIVE_REFERENCES = ("float64", "float32")
LEARNED = "learned"  # solver name of a stored plan
CONDITIONING_DTYPES = ("int64", "int32", "float32", "bool")

MAX_TRAIN_TIMESTEPS = 1_000_000  # the tables of a schedule are built when the file is loaded
MAX_RANK = 8

MAX_LAYERS = 100_000
MAX_CLASSES = 1 << 20  # calibration samples every class
MAX_VALUES = MAX_TRAIN_TIMESTEPS + 400_000  # of the JSON: each becomes an object of some 100 bytes

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """An input of the network besides sample and time.

    Attributes:
        name: Its name, in the graph and as key of ``cond``.
        dtype: NumPy's name of its type.
        shape: Its shape for one sample; ``()`` is one number per sample.
        null: The value of every element that means "no condition", for classifier-free guidance; None if there is none.
        classes: Number of classes of a label, which is 0 to ``classes`` − 1; None if the input is not a label.
        class_names: The names of the classes in order; None if they have no names.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    null: float | int | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None

    def to_json(self, *, names: bool) -> dict[str, Any]:
        """As JSON, with or without the field ``class_names``."""
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
    """How a network runs in int8, as determined by ``df.quantize``.

    Attributes:
        layers: The layers that run in int8, each by the name of its output.
        ranges: The range (lo, hi) of each quantized tensor, by name: inputs and outputs of the layers.
        relative_error: The error by runtime: root mean square of ‖y − y32‖/‖y32‖ over network calls y on trajectories that were
            not used for calibration.
        frechet_distance: Fréchet distance to held-out training images with ``float32`` and with ``int8``; None if it was not
            measured.
        calibration: How the ranges were found, free-form.
    """

    layers: tuple[str, ...]
    ranges: dict[str, Range]
    relative_error: dict[str, float]
    frechet_distance: dict[str, float] | None = None
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "layers": list(self.layers), "ranges": {n: list(r) for n, r in self.ranges.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """The errors of the native runtime, as measured when the network was exported.

    Attributes:
        program_version: Version of the programs that were measured.
        program: Hash of the program.
        reference: What the outputs were compared with: the program in ``float64``, or in ``float32`` for a large network.
        times: The time inputs of the calls.
        errors: By precision, the largest error of each call, relative to the largest output.
        float32_layers: Convolutions that ``float32-fast`` computes as ``float32`` does, because its error was too large.
    """

    program_version: int
    program: str
    reference: str
    times: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]
    float32_layers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        errors = {precision: list(found) for precision, found in self.errors.items()}
        lists = {"times": list(self.times), "errors": errors, "float32_layers": list(self.float32_layers)}
        return {**dataclasses.asdict(self), **lists}


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """The description of a network in its artifact.

    Attributes:
        name: A short name.
        schedule: The noise schedule it was trained with. None only if the mapping of a foreign file leaves it out.
        prediction_type: ``epsilon``, ``sample``, ``v_prediction``, ``flow`` or ``denoised``. None as above.
        time: Its time input.
        input: Name of the input that takes the sample.
        output: Name of the output that holds the prediction.
        shape: Shape of one sample.
        dtype: Type of sample and output at the graph's edge.
        value_range: Range ``(lo, hi)`` of the training data; None for unbounded data such as latents.
        input_scale: ``none`` if the network takes the state alpha·x0 + sigma·ε itself, ``1/alpha`` if it takes
            x0 + (sigma/alpha)·ε. None only if the mapping of a foreign file leaves out schedule or prediction_type.
        variance: ``none``, ``learned`` or ``learned_range``; with the last two the output has twice the channels.
        clip: Default bounds of the data prediction; None does not clip.
        conditioning: Its other inputs.
        training: Provenance, free-form.
        license: SPDX expression or any text; None if unknown.
        producer: The program that wrote the file.
        opset: Version of the ONNX operator set.
        plans: Plans learned for it, at most one per number of steps; selected by ``solver="learned"``.
        quantization: The settings of ``precision="int8"``; None if ``df.quantize`` was not used.
        native: The errors of the native runtime; None if they were not measured, or it does not run the network.
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
    native: Native | None = None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the network's output for one sample: that of the sample, with channels doubled for a learned variance."""
        return output_shape(self.shape, self.variance)

    def to_json(self) -> dict[str, Any]:
        """The document as JSON, in the oldest version that can express it."""
        if self.schedule is None or self.prediction_type is None or self.input_scale is None:
            raise ArtifactError("a document needs a schedule, a prediction_type and an input_scale.")
        version, more = self._version()
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
            "conditioning": [c.to_json(names=version >= VERSION_WITH_CLASS_NAMES) for c in self.conditioning],
            "training": self.training,
            "license": self.license,
            "producer": self.producer,
            "opset": self.opset,
            **more,
        }

    def _version(self) -> tuple[int, dict[str, Any]]:
        """The oldest version that can express the document, and the fields that it has more than the first."""
        version = VERSION
        for newer, needed in (
            (VERSION_WITH_PLANS, bool(self.plans)),
            (VERSION_WITH_QUANTIZATION, self.quantization is not None),
            (VERSION_WITH_CLASS_NAMES, any(c.class_names is not None for c in self.conditioning)),
            (VERSION_WITH_NATIVE, self.native is not None),
        ):
            version = newer if needed else version
        more: dict[str, Any] = {}
        if version >= VERSION_WITH_PLANS:
            more["plans"] = [json.loads(plan.to_json()) for plan in self.plans]
        if version >= VERSION_WITH_QUANTIZATION:
            more["quantization"] = None if self.quantization is None else self.quantization.to_json()
        if version >= VERSION_WITH_NATIVE:
            more["native"] = None if self.native is None else self.native.to_json()
        return version, more


def output_shape(shape: tuple[int, ...], variance: str) -> tuple[int, ...]:
    """Shape of a network's output for one sample: that of the sample, with channels doubled for a learned variance."""
    return shape if variance == "none" else (2 * shape[0], *shape[1:])


def clear_input_scale(given: str | None, prediction_type: str, *, scaled: bool) -> str:
    """The input scale of a network: the given one, or ``none`` if that is unambiguous.

    Args:
        given: The caller's value, or None.
        prediction_type: What the network predicts.
        scaled: Whether the schedule keeps the state on its own scale while sampling, as EDM's c_in·x.

    Raises:
        ArgumentError: an unknown value, or an ambiguous case without one.
    """
    if given is not None and given not in INPUT_SCALES:
        raise ArgumentError(f"input_scale is {given!r}.{suggest(str(given), INPUT_SCALES)}")
    if given is None and prediction_type == "denoised" and scaled:
        raise ArgumentError(
            "input_scale is not known: this schedule keeps the state as alpha·x0 + sigma·ε (EDM's c_in·x), and a network that "
            "predicts 'denoised' may take another. Give input_scale='1/alpha' if it takes x0 + (sigma/alpha)·ε, as EDM's denoiser "
            "D(x; sigma) does, or input_scale='none' if it takes the state as it is kept."
        )
    return given or "none"
