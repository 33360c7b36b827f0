"""Models: a network's file and what it says about itself.

:func:`load` checks everything that can be checked without a runtime, before any runtime opens the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import hints
from .artifact import document as documents
from .artifact.document import Conditioning, Document, Range, Time
from .artifact.file_identity import Files, state
from .artifact.write_document import rewrite
from .errors import ArgumentError, ArgumentTypeError, ArtifactError, ArtifactNotFoundError, suggest
from .files import replacing
from .onnx import external_data, header
from .onnx.graph import Nodes
from .planning import plan_for
from .plans.plan import PREDICTION_TYPES, Plan
from .schedule import Schedule

__all__ = ["Conditioning", "Model", "Time", "bundled", "load", "to_uint8"]

_BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model(Document):
    """A checked model file. Immutable; made by :func:`load` and ``df.export``; two are equal only if they are one.

    It has the fields of the artifact's document as attributes (``name``, ``schedule``, ``prediction_type``, ``shape``,
    ``value_range``, ``clip``, ``conditioning``, ``time``, ``variance``, ``training``, ``license``, ``opset``, ...) and:

    Attributes:
        path: The .onnx file, absolute, links resolved.
        external: Files beside it that hold its weights; empty if it holds them itself.
        files: All of them, and what they were when they were checked; whoever reads them again does so within
            ``files.unchanged()``.
        sha256: Digest in hex, computed when first asked for: of the file, or, with external data, of the digests of the
            file and of each external file one after the other.

    Example:
        >>> import diffuse_fast as df
        >>> model = df.load("digits")
        >>> model.shape, model.prediction_type
        ((1, 8, 8), 'v_prediction')
    """

    path: Path
    external: tuple[Path, ...] = ()
    files: Files = dataclasses.field(default=Files(), repr=False)

    def nodes(self) -> Nodes:
        """The inside of the file, read anew, to be changed in memory.

        Raises:
            ArtifactError: a file of the model was replaced since it was loaded.
        """
        with self.files.unchanged():
            return Nodes(self.path)

    def __repr__(self) -> str:
        inputs = "".join(f" {c.name}" for c in self.conditioning) or " none"
        return (
            f"<Model {self.name!r}: {self.shape}, {self.prediction_type}, {self.schedule!r}, conditioning:{inputs}, "
            f"{str(self.path)!r}>"
        )

    @cached_property
    def sha256(self) -> str:
        digests = []
        with self.files.unchanged():
            for path in (self.path, *self.external):
                with open(path, "rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256"))
        if len(digests) == 1:
            return digests[0].hexdigest()
        return hashlib.sha256(b"".join(d.digest() for d in digests)).hexdigest()

    def plan(self, solver: str, steps: int | None = None, **options: Any) -> Plan:
        """The plan by which ``df.sample(model, n, steps, solver=solver)`` draws: what the model knows need not be said.

        Args:
            solver, steps: As for :func:`diffuse_fast.plan`; ``"learned"`` is the model's own.
            **options: As for :func:`diffuse_fast.sample`: ``clip``, ``timestep_spacing``, ``timesteps``, options of the solver.

        Raises:
            ArgumentError, ArgumentTypeError, PlanError: as :func:`diffuse_fast.plan`; or the model says otherwise.

        Example:
            >>> import diffuse_fast as df
            >>> df.load("digits").plan("ddim", 20).nfe
            20
        """
        return plan_for(self, solver, steps, **options)


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.onnx")))


def load(model: str | Path, mapping: Mapping[str, Any] | None = None) -> Model:
    """Load and check a model file. No runtime is opened and no weight is read.

    Args:
        model: Path of an .onnx file, or the name of a bundled model (``"digits"``).
        mapping: For an .onnx file that does not describe itself, what a sampler must know. Keys:

            =================== =========================================================================
            ``sample``          name of the input that takes the sample; default ``"sample"``
            ``time``            name of the time input; default ``"timestep"``
            ``output``          name of the output; default: the only one
            ``schedule``        a :class:`Schedule` or its JSON; may be left to ``df.sample(schedule=...)``
            ``prediction_type`` ``"epsilon"``, ...; may be left to ``df.sample(prediction_type=...)``
            ``shape``           shape of one sample; default: the graph's, where it is fixed
            ``convention``      what it is told of the time, of the schedule's ``time_conventions``; default the first
            ``value_range``     ``(lo, hi)`` or None (default)
            ``clip``            ``(lo, hi)`` or None (default)
            ``variance``        ``"none"`` (default), ``"learned"``, ``"learned_range"``
            ``input_scale``     ``"none"`` (default) or ``"1/alpha"``, for a network that takes x0 + (sigma/alpha)·ε; must be
                                said of one that predicts ``"denoised"`` with ``Schedule.edm()``
            ``conditioning``    ``{input name: {"null": ..., "classes": ...}}`` for inputs that need it said; every other
                                input of the graph becomes a conditioning input without a null value
            ``name``            default: the file's name
            ``license``         default: None
            =================== =========================================================================

    Returns:
        The model.

    Raises:
        ArtifactNotFoundError: no such file, and no bundled model of that name.
        ArtifactError: the file is truncated, damaged, hostile, a pickle, does not describe itself, or contradicts itself.
        ArgumentError: the mapping has an unknown key, or is given for a file that describes itself.

    Example:
        >>> import diffuse_fast as df
        >>> df.load("digits").license
        'Apache-2.0'
    """
    path = find(model)
    before = state(path)
    outside = header.read(path)
    beside = external_data.check(outside.external, path.parent, Path(model).parent if Path(model).is_symlink() else None)
    files = Files((path, *beside), (before, *map(state, beside)))
    text = outside.metadata.get(documents.KEY)
    if text is not None:
        if mapping is not None:
            raise ArgumentError(f"mapping was given, but {str(path)!r} describes itself; leave it out.")
        document = documents.parse(text)
    elif mapping is not None:
        document = _mapped(mapping, outside, path)
    else:
        raise ArtifactError(
            f"{str(path)!r} does not describe itself: its metadata lack the field {documents.KEY!r}. It has the inputs "
            f"{_names(outside.inputs)} and the outputs {_names(outside.outputs)}. If it is a diffusion network, say which is "
            f"which: df.load(path, mapping={{'sample': ..., 'time': ..., 'schedule': ..., 'prediction_type': ...}})."
        )
    documents.check_graph(document, outside)
    fields = {f.name: getattr(document, f.name) for f in dataclasses.fields(Document)}
    files.check()
    return Model(**fields, path=path, external=beside, files=files)


def rewritten(model: Model, target: Path, **fields: Any) -> Model:
    """Write a model with other fields in its document: the graph and the weights stay byte for byte. Loaded once before it takes
    the name, so that nothing that could not be loaded is left behind.

    Args:
        model: The model; its file is not changed, unless ``target`` is that file.
        target: The .onnx to write; weights that lie beside the model must lie beside it.
        fields: Fields of the document.

    Raises:
        ArtifactError: the fields contradict the others.
        OSError: the file cannot be written.
    """
    document = Document(**{**{f.name: getattr(model, f.name) for f in dataclasses.fields(Document)}, **fields})
    documents.check(document)
    text = json.dumps(document.to_json(), sort_keys=True, allow_nan=False)
    with replacing(target) as partial:
        with model.files.unchanged():
            rewrite(model.path, partial, text)
        load(partial)
    return load(target)


def to_uint8(x: Any, model: Model | Range = (-1.0, 1.0)) -> Any:
    """Turn samples into the 256 levels of a picture: ``round(255·(x − lo)/(hi − lo))``, clipped.

    Args:
        x: Samples of any shape, floating: a NumPy array or a torch tensor.
        model: The model they came from, or its value range ``(lo, hi)``.

    Returns:
        uint8, the shape and kind of ``x``.

    Raises:
        ArgumentError: the model has no value range, or the range is none.
        ArgumentTypeError: ``x`` is not floating.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> df.to_uint8(np.array([-1.0, 0.0, 1.0, 7.0]), (-1, 1))
        array([  0, 128, 255, 255], dtype=uint8)
    """
    given = model.value_range if isinstance(model, Model) else model
    if given is None:
        raise ArgumentError("the model has no value range (its samples are no pictures, as latents are); give (lo, hi).")
    try:
        lo, hi = (float(v) for v in given)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"the value range is {given!r}; it must be a model or a pair (lo, hi).") from None
    if not lo < hi or not np.isfinite([lo, hi]).all():
        raise ArgumentError(f"the value range is {given!r}; it must be a finite pair with lo < hi.")
    scale = 255.0 / (hi - lo)
    if type(x).__module__.partition(".")[0] == "torch":
        if not x.is_floating_point():
            raise ArgumentTypeError(f"x has the dtype {x.dtype}; samples are floating.")
        return ((x.float() - lo) * scale + 0.5).nan_to_num(nan=0.0).clamp(0, 255).byte()
    array = np.asarray(x)
    if not np.issubdtype(array.dtype, np.floating):
        raise ArgumentTypeError(f"x has the dtype {array.dtype}; samples are floating.")
    level = (array.astype(np.float32) - np.float32(lo)) * np.float32(scale) + np.float32(0.5)
    # + 0.5 and truncation round half up; np.rint would send half the ties of an even grid down.
    return np.clip(np.nan_to_num(level, nan=0.0), 0, 255).astype(np.uint8)


def find(model: str | Path) -> Path:
    """The file of a path or bundled name, resolved."""
    if not isinstance(model, str | Path):
        raise ArgumentTypeError(f"model is a {type(model).__name__}; load takes a path or the name of a bundled model.")
    path = Path(model)
    try:
        if path.exists():
            return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"the model path {str(model)[:200]!r} cannot be used: {error}.") from None
    names = bundled()
    if str(model) in names:
        return (_BUNDLED / f"{model}.onnx").resolve()
    if len(path.parts) > 1 or path.suffix:
        raise ArtifactNotFoundError(f"there is no model file {str(model)!r}.")
    raise ArtifactNotFoundError(f"there is no file and no bundled model {str(model)!r}.{suggest(str(model), names)}")


def _names(values: tuple[header.Value, ...]) -> str:
    return ", ".join(repr(v.name) for v in values[:20]) or "none"


_MAPPING = ("sample", "time", "output", "schedule", "prediction_type", "shape", "convention", "value_range", "clip", "variance",
            "input_scale", "conditioning", "name", "license")  # fmt: skip


def _mapped(mapping: Mapping[str, Any], outside: header.Graph, path: Path) -> Document:
    """The document that a mapping and the graph make together: what the graph knows need not be said."""
    if not isinstance(mapping, Mapping):
        raise ArgumentTypeError(f"mapping is a {type(mapping).__name__}; it must be a dict.")
    for key in mapping:
        if key not in _MAPPING:
            raise ArgumentError(f"mapping has an unknown key {key!r}.{suggest(str(key), _MAPPING)}")
    inputs = {v.name: v for v in outside.inputs}

    def one(key: str, names: list[str], default: str) -> str:
        name = mapping.get(key, default)
        if name not in names:
            raise ArgumentError(f"mapping[{key!r}] is {name!r}, but the graph has {', '.join(map(repr, names)) or 'none'}.")
        return name

    sample = one("sample", list(inputs), "sample")
    time = one("time", list(inputs), "timestep")
    outputs = [v.name for v in outside.outputs]
    output = one("output", outputs, outputs[0] if len(outputs) == 1 else "")

    def fixed(value: header.Value, where: str) -> list[int]:
        if value.shape is None or not all(isinstance(d, int) for d in value.shape[1:]):
            raise ArgumentError(f"the graph does not fix the shape of {value.name!r}; say it as mapping[{where}].")
        return list(value.shape[1:])  # type: ignore[arg-type]  # all are int, as checked

    said = mapping.get("conditioning", {})
    if not isinstance(said, Mapping) or not all(isinstance(v, Mapping) for v in said.values()):
        raise ArgumentTypeError("mapping['conditioning'] must be a dict from input names to dicts.")
    others = [v for v in outside.inputs if v.name not in (sample, time)]
    if unknown := set(said) - {v.name for v in others}:
        raise ArgumentError(f"mapping['conditioning'] names {sorted(unknown)}; the graph has {[v.name for v in others]}.")
    conditioning = []
    for v in others:
        extra = dict(said.get(v.name, {}))
        shape = extra.pop("shape", None) or fixed(v, f"'conditioning'][{v.name!r}]['shape'")
        conditioning.append({"name": v.name, "dtype": v.dtype, "shape": shape, "null": None, "classes": None, **extra})

    schedule = mapping.get("schedule")
    prediction_type = mapping.get("prediction_type")
    if prediction_type is not None and prediction_type not in PREDICTION_TYPES:
        tail = hints.of_prediction(prediction_type) + suggest(str(prediction_type), PREDICTION_TYPES)
        raise ArgumentError(f"mapping['prediction_type'] is {prediction_type!r}.{tail}")
    # The rest is checked as a document is; a stand-in schedule fills the place of one that is left to df.sample.
    known = schedule if isinstance(schedule, Schedule) else documents.schedule_from(schedule or Schedule.linear().to_json())
    convention = mapping.get("convention", known.time_conventions[0])
    complete = schedule is not None and prediction_type is not None
    input_scale = documents.clear_input_scale(
        mapping.get("input_scale"), prediction_type or "epsilon", scaled=complete and known.family == "edm"
    )
    raw = {
        "format": documents.FORMAT,
        "version": documents.VERSION,
        "name": mapping.get("name", path.stem),
        "schedule": known.to_json(),
        "prediction_type": prediction_type or "epsilon",
        "time": {"input": time, "convention": convention, "dtype": inputs[time].dtype},
        "sample": {
            "input": sample,
            "output": output,
            "shape": mapping["shape"] if "shape" in mapping else fixed(inputs[sample], "'shape'"),
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
        "opset": outside.opset,
    }
    document = documents.build(raw)
    if complete:
        documents.check_schedule(document)
    return dataclasses.replace(
        document,
        schedule=None if schedule is None else document.schedule,
        prediction_type=prediction_type,
        input_scale=input_scale if complete else mapping.get("input_scale"),
    )
