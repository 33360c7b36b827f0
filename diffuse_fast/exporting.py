"""Export: a torch module becomes one self-describing .onnx file that was shown to compute the same thing.

The file appears under its name only when it has passed the checker and agreed with the module at several batch sizes; until
then it is built in a temporary folder beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, hints
from .artifact import document as documents
from .artifact.document import Document, Range, Time
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    ExportError,
    MissingDependencyError,
    NetworkError,
    OutputError,
    install_hint,
    suggest,
)
from .model import Model, load
from .plans.plan import PREDICTION_TYPES
from .runtimes import Network, network
from .schedule import Schedule

OPSETS = (23, 21)  # in the order in which they are tried
BATCHES = (1, 3, 16)  # sizes at which the file must agree with the module
MAX_SINGLE_FILE = 2_000_000_000  # bytes; protobuf ends at 2^31 - 1

# The file and the module sum in other orders. A float32 network of ordinary depth then differs by some 1e-6 of the scale of
# its output; a baked-in batch, time or layout differs by the scale itself. The bound lies between.
TOLERANCE = 1e-4


def export(
    module: Any,
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    schedule: Schedule,
    prediction_type: str,
    name: str | None = None,
    conditioning: Sequence[Mapping[str, Any]] = (),
    convention: str | None = None,
    time_dtype: str | None = None,
    value_range: Range | None = (-1.0, 1.0),
    clip: Range | None = None,
    variance: str = "none",
    input_scale: str | None = None,
    training: Mapping[str, Any] | None = None,
    license: str | None = None,
    opset: int | None = None,
    max_single_file: int = MAX_SINGLE_FILE,
) -> Model:
    """Write a torch module as an artifact.

    Args:
        module: A module on the CPU in eval mode, called ``module(x, t, **cond)`` with ``x`` (B, *shape) float32, ``t`` (B,) and
            each conditioning input (B, *its shape). It returns (B, *shape), channels doubled for a learned variance, or an
            object with that as ``.sample``, as diffusers' networks do.
        path: Where to write; must end in ``.onnx``. An existing file is replaced.
        shape: Shape of one sample.
        schedule: The noise schedule of its training.
        prediction_type: What it predicts: ``epsilon``, ``sample``, ``v_prediction``, ``flow``, ``denoised``, ``score`` or ``edm``;
            of the schedule's ``prediction_types``.
        name: A short name; None takes the file's.
        conditioning: Its other inputs, each ``{"name": ..., "dtype": "int64", "shape": [], "null": None, "classes": None,
            "class_names": None}``; all but the name have these defaults. ``null`` is the value for "no condition",
            ``classes`` makes it a label, and ``class_names`` are the names by which its classes can be asked for.
        convention: What it is told of the time, one of the schedule's ``time_conventions``; None is the first.
        time_dtype: dtype of its time input; None is ``int64`` for timesteps and ``float32`` for the rest.
        value_range: The values of its training data; None for data without bounds.
        clip: Where samplers clip the data prediction by default; None for not at all.
        variance: ``none``, ``learned`` or ``learned_range``.
        input_scale: ``none``, where it takes the state alpha·x0 + sigma·ε as the schedule has it, or ``1/alpha``, where it takes
            x0 + (sigma/alpha)·ε. None is ``none``, but must be said of a module that predicts ``denoised`` with
            ``Schedule.edm()``.
        training: Provenance: anything that JSON can hold. It must not change between two exports that shall be equal.
        license: SPDX expression.
        opset: 23 or 21; None takes 23, and 21 where torch cannot convert to 23 or onnxruntime does not run the result.
        max_single_file: Where the weights have more bytes than this, they go to ``<path>.data``.

    Returns:
        The written file, loaded.

    Raises:
        ArgumentError, ArgumentTypeError: an argument cannot be used.
        ExportError: torch cannot export the module, or the file does not compute what the module computes.
        OutputError: the path cannot be written.
        MissingDependencyError: torch, onnx or onnxruntime is missing.

    Example:
        >>> import diffuse_fast as df
        >>> net = df.nn.UNet(1, channels=16, groups=8, num_classes=10).eval()                   # doctest: +SKIP
        >>> model = df.export(net, "net.onnx", shape=(1, 8, 8), schedule=df.Schedule.cosine(),  # doctest: +SKIP
        ...     prediction_type="v_prediction", clip=(-1, 1), conditioning=[{"name": "label", "null": 10, "classes": 10}])
    """
    torch = _needed("torch")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _needed(package)
    target = _target(path)
    if opset is not None and opset not in OPSETS:
        raise ArgumentError(f"opset is {opset!r}; it must be {' or '.join(map(str, OPSETS))}, or None.")
    document = _document(
        name if name is not None else target.stem,
        shape,
        schedule,
        prediction_type,
        conditioning,
        convention,
        time_dtype,
        value_range,
        clip,
        variance,
        input_scale,
        training,
        license,
    )
    _usable(module, torch)

    with _staging(target) as folder, _quiet():
        draft = folder / target.name
        traced = _trace(torch, module, document)
        opsets = OPSETS if opset is None else (opset,)
        for version in opsets:
            try:
                written, file = _build(torch, traced, document, version, draft, max_single_file)
                break
            except ExportError:
                if version == opsets[-1]:
                    raise
        _agree(torch, module, document, file)
        # The data first: the model file is what others look for, and must never be there without them.
        for path in reversed(written):
            os.replace(path, target.parent / path.name)
        if len(written) == 1:
            target.with_name(target.name + ".data").unlink(missing_ok=True)  # of the file that this one replaced
    return load(target)


# ---- arguments ----------------------------------------------------------------------------------


def _needed(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(f"df.export needs {package} ({error}): {install_hint('train')}") from None


def _target(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"path is a {type(path).__name__}; it must be the path of the file to write.")
    target = Path(path)
    if target.suffix != ".onnx":
        raise ArgumentError(f"path is {str(target)!r}; it must end in '.onnx'.")
    try:
        target = target.parent.resolve() / target.name
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}.")
        if target.is_dir():
            raise OutputError(f"cannot write {str(target)!r}: it is a folder.")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror}.") from None
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(f"path is {str(path)!r}: {error}.") from None
    return target


def _document(
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
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(schedule).__name__}; it must be a df.Schedule.")
    if prediction_type not in PREDICTION_TYPES:
        tail = hints.of_prediction(prediction_type) + suggest(str(prediction_type), PREDICTION_TYPES)
        raise ArgumentError(f"prediction_type is {prediction_type!r}.{tail}")
    convention = schedule.time_conventions[0] if convention is None else convention
    whole = convention == "timestep" and schedule.family == "discrete"
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
        "time": {"input": Time().input, "convention": convention, "dtype": time_dtype or ("int64" if whole else "float32")},
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
        document = documents.build(raw)
        documents.check_schedule(document)
        return document
    except ArtifactError as error:
        raise ArgumentError(str(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"training (or another argument) cannot be written as JSON: {error}.") from None


def _usable(module: Any, torch: Any) -> None:
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"module is a {type(module).__name__}; it must be a torch.nn.Module.")
    if any(m.training for m in module.modules()):
        raise ArgumentError("the module is in training mode, whose dropout would be exported with it; call module.eval() first.")
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type != "cpu":
            raise ArgumentError(f"the module has tensors on the device {tensor.device}; call module.cpu() first.")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ArgumentError(f"the module has parameters of {tensor.dtype}; export the float32 one: module.float().")


# ---- conversion ---------------------------------------------------------------------------------


def _trace(torch: Any, module: Any, document: Document) -> Any:
    """The module as a torch program, with its inputs in a row and its output a tensor."""

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, x: Any, t: Any, *cond: Any) -> Any:
            named = {c.name: value for c, value in zip(document.conditioning, cond, strict=True)}
            result = self.network(x, t, **named)
            return _prediction(torch, result)

    # Two samples: torch specialises on a batch of one.
    inputs = tuple(torch.from_numpy(array) for array in _example(document, 2).values())
    try:
        with torch.no_grad():
            return torch.export.export(Positional().eval(), inputs, dynamic_shapes=_dynamic(torch, document), strict=False)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"torch cannot export the module: {_short(error)}") from error


def _prediction(torch: Any, result: Any) -> Any:
    """What a module has returned, as the tensor it predicts.

    Raises:
        ExportError: it is none.
    """
    prediction = getattr(result, "sample", result)
    if not isinstance(prediction, torch.Tensor):
        raise ExportError(
            f"the module returns a {type(result).__name__}; it must return a tensor, or an object with one as .sample. Wrap it in "
            "a module whose forward picks the prediction."
        )
    return prediction


def _dynamic(torch: Any, document: Document) -> Any:
    """Which dimensions vary, in the structure of the call. Not a named one: networks that test their batch refuse it."""
    batch = {0: torch.export.Dim.DYNAMIC}
    cond = tuple(batch for _ in document.conditioning)
    return (batch, batch, cond) if cond else (batch, batch)


def _build(
    torch: Any, traced: Any, document: Document, opset: int, draft: Path, max_single_file: int
) -> tuple[list[Path], Network]:
    """Convert, write and open a draft: the files, the model's first, and the network as onnxruntime runs it.

    Raises:
        ExportError: this opset cannot say what the module does, or onnxruntime cannot run what it says.
    """
    document = documents.build({**document.to_json(), "opset": opset})
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=opset,
            input_names=list(_example(document, 1)),
            output_names=[document.output],
            dynamic_shapes=_dynamic(torch, document),
            external_data=False,
            verbose=False,
            optimize=True,
        )
    except Exception as error:
        raise ExportError(f"torch cannot convert the module to opset {opset}: {_short(error)}") from error
    written = _write(program, document, draft, max_single_file)
    try:
        return written, network(load(draft), "onnx", threads=1)
    except ArtifactError as error:
        raise ExportError(f"the file exported at opset {opset} cannot be used: {error}") from error


def _write(program: Any, document: Document, draft: Path, max_single_file: int) -> list[Path]:
    """Write the program with its document; returns the files, the model's first."""
    import onnx

    # Asked before there is one message of all: protobuf has none of more than 2 GiB.
    weights = sum(w.const_value.nbytes for w in program.model.graph.initializers.values() if w.const_value is not None)
    proto = program.model_proto
    _strip(proto)
    # Sorted, and without a trace of when or where: the same module gives the same bytes.
    text = json.dumps(document.to_json(), sort_keys=True, allow_nan=False)
    proto.metadata_props.add(key=documents.KEY, value=text)
    proto.producer_name, proto.producer_version = "diffuse_fast", __version__
    beside = draft.with_name(draft.name + ".data")
    beside.unlink(missing_ok=True)  # of a draft at another opset: onnx would append to it
    try:
        if weights > max_single_file:
            # Small tensors stay: shape inference reads those that are shapes, and does not open other files.
            onnx.save_model(
                proto, draft, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name, size_threshold=1024
            )
        else:
            onnx.save_model(proto, draft)
    except OSError as error:
        raise OutputError(f"cannot write the model: {error}.") from error
    try:
        onnx.checker.check_model(os.fspath(draft), full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker refuses the exported file: {_short(error)}") from error
    return [path for path in (draft, beside) if path.exists()]


def _strip(proto: Any) -> None:
    """Remove what the exporter says of its own run: stack traces, paths, names of Python modules."""

    def graph(g: Any) -> None:
        for part in (g, *g.node, *g.input, *g.output, *g.value_info, *g.initializer):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in g.node:
            attributes(node.attribute)

    def attributes(values: Any) -> None:
        for attribute in values:
            attribute.ClearField("doc_string")
            for sub in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                graph(sub)

    proto.ClearField("doc_string")
    proto.ClearField("metadata_props")
    graph(proto.graph)
    proto.graph.name = "network"
    for function in proto.functions:
        for part in (function, *function.node, *function.value_info):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in function.node:
            attributes(node.attribute)


# ---- comparison ---------------------------------------------------------------------------------


def _agree(torch: Any, module: Any, document: Document, file: Network) -> None:
    """Run the file as a sampler would, beside the module, at several batch sizes and times."""
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        arrays = _example(document, batch, rng)
        cond = {c.name: arrays[c.name] for c in document.conditioning}
        bound = file.bind(batch, document.shape, cond)
        bound.x[...] = arrays[document.input]
        for t in _times(document):
            time = torch.full((batch,), t, dtype=getattr(torch, document.time.dtype))
            with torch.no_grad():
                named = {name: torch.from_numpy(array) for name, array in cond.items()}
                expected = module(torch.from_numpy(arrays[document.input]), time, **named)
            expected = _prediction(torch, expected).numpy()
            if expected.shape != bound.output.shape:
                raise ExportError(
                    f"the module returns {expected.shape} for a batch of {batch}; its shape and variance say {bound.output.shape}."
                )
            if not np.isfinite(expected).all():
                raise ExportError(f"the module returns NaN or Inf for noise at time {t}; there is nothing to compare with.")
            try:
                got = bound(t)
            except NetworkError as error:
                raise ExportError(f"the exported file does not run at batch {batch}: {error}") from error
            scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
            apart = float(np.abs(got - expected).max()) / scale
            if not apart <= TOLERANCE:
                raise ExportError(
                    f"the exported file differs from the module by {apart:.2g} of its output's scale at batch {batch}, time {t}; "
                    f"at most {TOLERANCE:g} is rounding. Is a size, a time or a random number baked in?"
                )


def _times(document: Document) -> list[float]:
    assert document.schedule is not None
    if document.time.convention != "timestep":
        return [0.25, 0.75]
    last = document.schedule.t_max
    return [0.0, float(last // 3), float(last)]


def _example(document: Document, batch: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """Inputs of a batch in the order of the call: the sample, the time, the conditioning."""
    rng = rng or np.random.default_rng(0)
    inputs = {
        document.input: rng.standard_normal((batch, *document.shape)).astype(np.float32),
        document.time.input: np.full(batch, _times(document)[1], document.time.dtype),
    }
    for c in document.conditioning:
        size = (batch, *c.shape)
        if c.dtype == "float32":
            inputs[c.name] = rng.standard_normal(size).astype(np.float32)
        else:
            inputs[c.name] = rng.integers(0, min(c.classes or 2, 1 << 30), size).astype(c.dtype)
    return inputs


# ---- surroundings -------------------------------------------------------------------------------


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target, so that a rename is atomic; gone afterwards, whatever happens."""
    folder = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}.") from None
    try:
        yield folder
    except OSError as error:
        if isinstance(error, OutputError | ArtifactError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints, log lines and deprecation warnings about itself from the user."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _short(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 1500 else text[:1500] + " ..."
