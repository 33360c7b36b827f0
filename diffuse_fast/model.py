"""Models: a network's file and its description.

:func:`load` checks everything that can be checked without a runtime, before a runtime opens the file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .artifact.check_document import check
from .artifact.check_graph import check_graph
from .artifact.document import KEY, Conditioning, Document, Range, Time
from .artifact.file_identity import Files, state
from .artifact.mapping import document_from_mapping
from .artifact.read_document import parse
from .artifact.write_document import rewrite
from .errors import ArgumentError, ArgumentTypeError, ArtifactError, ArtifactNotFoundError, suggest
from .files import replacing
from .onnx import external_data, header
from .onnx.graph import Graph
from .planning import plan_for
from .plans.plan import Plan

__all__ = ["Conditioning", "Model", "Time", "bundled", "load", "to_uint8"]

_BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model(Document):
    """A checked model file. Immutable; made by :func:`load` and ``df.export``; compared by identity.

    It has the fields of the artifact's document as attributes (``name``, ``schedule``, ``prediction_type``, ``shape``,
    ``value_range``, ``clip``, ``conditioning``, ``time``, ``variance``, ``training``, ``license``, ``opset``, ...) and:

    Attributes:
        path: The .onnx file, absolute, links resolved.
        external: Files in the same folder that hold its weights; empty if the .onnx file holds them.
        files: All of them, with their state when they were checked; read them again only within ``files.unchanged()``.
        sha256: Digest in hex, computed on first use: of the file, or, with external data, of the concatenated digests of the file
            and of each external file.

    Example:
        >>> import diffuse_fast as df
        >>> model = df.load("digits")
        >>> model.shape, model.prediction_type
        ((1, 8, 8), 'v_prediction')
    """

    path: Path
    external: tuple[Path, ...] = ()
    files: Files = dataclasses.field(default=Files(), repr=False)

    def graph(self) -> Graph:
        """Read the graph of the file, to edit it in memory.

        Raises:
            ArtifactError: a file of the model was replaced since it was loaded.
        """
        with self.files.unchanged():
            return Graph(self.path)

    def __repr__(self) -> str:
        inputs = "".join(f" {c.name}" for c in self.conditioning) or " none"
        return (
            f"<Model {self.name!r}: {self.shape}, {self.prediction_type}, {self.schedule!r}, conditioning:{inputs}, "
            f"{str(self.path)!r}>"
        )

    @cached_property
    def sha256(self) -> str:
        with self.files.unchanged():
            return checksum((self.path, *self.external))

    def plan(self, solver: str, steps: int | None = None, **options: Any) -> Plan:
        """The plan that ``df.sample(model, n, steps, solver=solver)`` follows, with what the model declares.

        Args:
            solver, steps: As for :func:`diffuse_fast.plan`; ``"learned"`` is a plan stored in the model.
            **options: As for :func:`diffuse_fast.sample`: ``clip``, ``timestep_spacing``, ``timesteps``, options of the solver.

        Raises:
            ArgumentError, ArgumentTypeError, PlanError: as :func:`diffuse_fast.plan`, or an argument contradicts the model.

        Example:
            >>> import diffuse_fast as df
            >>> df.load("digits").plan("ddim", 20).nfe
            20
        """
        return plan_for(self, solver, steps, **options)


def checksum(paths: Sequence[Path]) -> str:
    """The digest of a model file and its external data; see :class:`Model`."""
    import hashlib  # slow to import, and not needed for sampling

    digests = []
    for path in paths:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(d.digest() for d in digests)).hexdigest()


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.onnx")))


def load(model: str | Path, mapping: Mapping[str, Any] | None = None) -> Model:
    """Load and check a model file. No runtime is opened and no weight is read.

    Args:
        model: Path of an .onnx file, or the name of a bundled model (``"digits"``).
        mapping: The description of an .onnx file that has none. Keys:

            =================== =========================================================================
            ``sample``          name of the input that takes the sample; default ``"sample"``
            ``time``            name of the time input; default ``"timestep"``
            ``output``          name of the output; default: the only one
            ``schedule``        a :class:`Schedule` or its JSON; may be left to ``df.sample(schedule=...)``
            ``prediction_type`` ``"epsilon"``, ...; may be left to ``df.sample(prediction_type=...)``
            ``shape``           shape of one sample; default: the graph's, where it is fixed
            ``convention``      form of the time input, of the schedule's ``time_conventions``; default: the first
            ``value_range``     ``(lo, hi)`` or None (default)
            ``clip``            ``(lo, hi)`` or None (default)
            ``variance``        ``"none"`` (default), ``"learned"``, ``"learned_range"``
            ``input_scale``     ``"none"`` (default) or ``"1/alpha"``, for a network that takes x0 + (sigma/alpha)·ε;
                                required if it predicts ``"denoised"`` with ``Schedule.edm()``
            ``conditioning``    ``{input name: {"null": ..., "classes": ...}}``; every other input of the graph becomes a
                                conditioning input without a null value
            ``name``            default: the file's name
            ``license``         default: None
            =================== =========================================================================

    Returns:
        The model.

    Raises:
        ArtifactNotFoundError: no such file, and no bundled model of that name.
        ArtifactError: the file is truncated, damaged, hostile, a pickle, does not describe itself, or contradicts itself.
        ArgumentError: the mapping has an unknown key, or the file describes itself.

    Example:
        >>> import diffuse_fast as df
        >>> df.load("digits").license
        'Apache-2.0'
    """
    path = find(model)
    before = state(path)
    graph = header.read(path)
    beside = external_data.check(graph.external, path.parent, Path(model).parent if Path(model).is_symlink() else None)
    files = Files((path, *beside), (before, *map(state, beside)))
    text = graph.metadata.get(KEY)
    if text is not None:
        if mapping is not None:
            raise ArgumentError(f"mapping was given, but {str(path)!r} describes itself; leave it out.")
        document = parse(text)
    elif mapping is not None:
        document = document_from_mapping(mapping, graph, path)
    else:
        raise ArtifactError(
            f"{str(path)!r} does not describe itself: its metadata lack the field {KEY!r}. It has the inputs "
            f"{_names(graph.inputs)} and the outputs {_names(graph.outputs)}. If it is a diffusion network, describe it: "
            f"df.load(path, mapping={{'sample': ..., 'time': ..., 'schedule': ..., 'prediction_type': ...}})."
        )
    check_graph(document, graph)
    fields = {f.name: getattr(document, f.name) for f in dataclasses.fields(Document)}
    files.check()
    return Model(**fields, path=path, external=beside, files=files)


def rewritten(model: Model, target: Path, **fields: Any) -> Model:
    """Write a model with other fields in its document; the graph and the weights stay byte for byte. The new file is loaded once
    before it gets its name, so a file that cannot be loaded is never left behind.

    Args:
        model: The model; its file is not changed, unless ``target`` is that file.
        target: The .onnx file to write; external weights must be in its folder.
        fields: Fields of the document.

    Raises:
        ArtifactError: the fields contradict the others.
        OSError: the file cannot be written.
    """
    document = Document(**{**{f.name: getattr(model, f.name) for f in dataclasses.fields(Document)}, **fields})
    check(document)
    text = json.dumps(document.to_json(), sort_keys=True, allow_nan=False)
    with replacing(target) as partial:
        with model.files.unchanged():
            rewrite(model.path, partial, text)
        load(partial)
    return load(target)


def to_uint8(x: Any, model: Model | Range = (-1.0, 1.0)) -> Any:
    """Convert samples to image levels: ``round(255·(x − lo)/(hi − lo))``, clipped to 0 to 255.

    Args:
        x: Floating-point samples of any shape: a NumPy array or a torch tensor.
        model: The model they came from, or its value range ``(lo, hi)``.

    Returns:
        uint8, the shape and kind of ``x``.

    Raises:
        ArgumentError: the model has no value range, or the range is invalid.
        ArgumentTypeError: ``x`` is not floating-point.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> df.to_uint8(np.array([-1.0, 0.0, 1.0, 7.0]), (-1, 1))
        array([  0, 128, 255, 255], dtype=uint8)
    """
    given = model.value_range if isinstance(model, Model) else model
    if given is None:
        raise ArgumentError("the model has no value range (its samples are not images, but e.g. latents); give (lo, hi).")
    try:
        lo, hi = (float(v) for v in given)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"the value range is {given!r}; it must be a model or a pair (lo, hi).") from None
    if not lo < hi or not np.isfinite([lo, hi]).all():
        raise ArgumentError(f"the value range is {given!r}; it must be a finite pair with lo < hi.")
    scale = 255.0 / (hi - lo)
    if type(x).__module__.partition(".")[0] == "torch":
        if not x.is_floating_point():
            raise ArgumentTypeError(f"x has the dtype {x.dtype}; samples must be floating-point.")
        return ((x.float() - lo) * scale + 0.5).nan_to_num(nan=0.0).clamp(0, 255).byte()
    array = np.asarray(x)
    if not np.issubdtype(array.dtype, np.floating):
        raise ArgumentTypeError(f"x has the dtype {array.dtype}; samples must be floating-point.")
    level = (array.astype(np.float32) - np.float32(lo)) * np.float32(scale) + np.float32(0.5)
    # + 0.5 and truncation round half up; np.rint rounds half to even.
    return np.clip(np.nan_to_num(level, nan=0.0), 0, 255).astype(np.uint8)


def find(model: str | Path) -> Path:
    """The resolved path of a model file, given its path or the name of a bundled model."""
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
