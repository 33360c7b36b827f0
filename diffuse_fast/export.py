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

from . import __version__
from .artifact import document as documents
from .artifact.document import Document, Range, Time
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    ExportError,
    OutputError,
    RuntimeUnavailableError,
    near,
)
from .model import Model, load
from .plan import PREDICTION_TYPES
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
    convention: str = "timestep",
    time_dtype: str | None = None,
    value_range: Range | None = (-1.0, 1.0),
    clip: Range | None = None,
    variance: str = "none",
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
        prediction_type: What it predicts: ``epsilon``, ``sample``, ``v_prediction``, ``flow`` or ``denoised``.
        name: A short name; None takes the file's.
        conditioning: Its other inputs, each ``{"name": ..., "dtype": "int64", "shape": [], "null": None, "classes": None}``;
            all but the name have these defaults. ``null`` is the value for "no condition", ``classes`` makes it a label.
        convention: What its times mean: ``timestep``, ``sigma``, ``continuous`` or ``log_snr``.
        time_dtype: dtype of its time input; None is ``int64`` for timesteps and ``float32`` for the rest.
        value_range: The values of its training data; None for data without bounds.
        clip: Where samplers clip the data prediction by default; None for not at all.
        variance: ``none``, ``learned`` or ``learned_range``.
        training: Provenance: anything that JSON can hold. It must not change between two exports that shall be equal.
        license: SPDX expression.
        opset: 23 or 21; None takes 23, and 21 where the conversion to 23 fails.
        max_single_file: Above this many bytes the weights go to ``<path>.data``.

    Returns:
        The written file, loaded.

    Raises:
        ArgumentError, ArgumentTypeError: an argument cannot be used.
        ExportError: torch cannot export the module, or the file does not compute what the module computes.
        OutputError: the path cannot be written.
        RuntimeUnavailableError: torch, onnx or onnxruntime is missing.

    Example:
        >>> import diffuse_fast as df
        >>> net = df.nn.UNet((1, 8, 8), channels=16, num_classes=10).eval()                     # doctest: +SKIP
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
        name if name is not None else target.stem, shape, schedule, prediction_type, conditioning, convention, time_dtype,
        value_range, clip, variance, training, license,
    )  # fmt: skip
    _usable(module, torch)

    with _staging(target) as folder, _quiet():
        program, opset = _convert(torch, module, document, (opset,) if opset is not None else OPSETS)
        document = documents.build({**document.to_json(), "opset": opset})
        draft = folder / target.name
        written = _write(program, document, draft, max_single_file)
        _agree(torch, module, document, draft)
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
        raise RuntimeUnavailableError(f"df.export needs {package} ({error}): pip install 'diffuse-fast[train]'") from None


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
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(f"path is {str(path)!r}: {error}.") from None
    return target


def _document(
    name: str, shape: Any, schedule: Any, prediction_type: Any, conditioning: Any, convention: str, time_dtype: str | None,
    value_range: Any, clip: Any, variance: str, training: Any, license: str | None,
) -> Document:  # fmt: skip
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(schedule).__name__}; it must be a df.Schedule.")
    if prediction_type not in PREDICTION_TYPES:
        raise ArgumentError(f"prediction_type is {prediction_type!r}.{near(str(prediction_type), PREDICTION_TYPES)}")
    inputs = []
    for item in conditioning:
        if not isinstance(item, Mapping):
            raise ArgumentTypeError("conditioning must be a list of dicts, one per input.")
        inputs.append({"dtype": "int64", "shape": [], "null": None, "classes": None, **item})
    raw = {
        "format": documents.FORMAT,
        "version": documents.VERSION,
        "name": name,
        "schedule": schedule.to_json(),
        "prediction_type": prediction_type,
        "time": {
            "input": Time().input,
            "convention": convention,
            "dtype": time_dtype or ("int64" if convention == "timestep" else "float32"),
        },
        "sample": {
            "input": "x",
            "output": "output",
            "shape": [int(n) if isinstance(n, np.integer) else n for n in shape],
            "dtype": "float32",
            "value_range": value_range,
        },
        "input_scale": "none",
        "variance": variance,
        "clip": clip,
        "conditioning": inputs,
        "training": dict(training or {}),
        "license": license,
        "producer": f"diffuse_fast {__version__}",
        "opset": OPSETS[0],
    }
    try:
        json.dumps(raw, allow_nan=False)
        return documents.build(raw)
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


def _convert(torch: Any, module: Any, document: Document, opsets: tuple[int, ...]) -> tuple[Any, int]:
    """The module as an ONNX program, at the first opset to which it converts."""

    class Positional(torch.nn.Module):  # type: ignore[name-defined, misc]
        """The module with its inputs in a row and its output a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, x: Any, t: Any, *cond: Any) -> Any:
            named = {c.name: value for c, value in zip(document.conditioning, cond, strict=True)}
            result = self.network(x, t, **named)
            return getattr(result, "sample", result)

    # Two samples: torch specialises on a batch of one.
    inputs = tuple(torch.from_numpy(array) for array in _example(document, 2).values())
    dynamic = {0: torch.export.Dim.DYNAMIC}
    shapes = (dynamic, dynamic, tuple(dynamic for _ in inputs[2:]))
    try:
        with torch.no_grad():
            exported = torch.export.export(Positional().eval(), inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ExportError(f"torch cannot export the module: {_short(error)}") from error
    for opset in opsets:
        try:
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=opset,
                input_names=list(_example(document, 1)),
                output_names=[document.output],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
                optimize=True,
            )
            if program.model.opset_imports.get("") != opset:
                raise ExportError(f"the conversion stopped at opset {program.model.opset_imports.get('')}.")
            return program, opset
        except Exception as error:
            failure = error
    raise ExportError(f"torch cannot convert the module to opset {opsets[-1]}: {_short(failure)}") from failure


def _write(program: Any, document: Document, draft: Path, max_single_file: int) -> list[Path]:
    """Write the program with its document; returns the files, the model's first."""
    import onnx

    proto = program.model_proto
    _strip(proto)
    # Sorted, and without a trace of when or where: the same module gives the same bytes.
    text = json.dumps(document.to_json(), sort_keys=True, allow_nan=False)
    proto.metadata_props.add(key=documents.KEY, value=text)
    proto.producer_name, proto.producer_version = "diffuse_fast", __version__
    beside = draft.with_name(draft.name + ".data")
    large = proto.ByteSize() > max_single_file
    try:
        if large:
            onnx.save_model(
                proto, draft, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name, size_threshold=1024
            )
        else:
            onnx.save_model(proto, draft)
    except OSError as error:
        raise OutputError(f"cannot write the model: {error}.") from error
    files = [draft, beside] if large and beside.exists() else [draft]
    try:
        onnx.checker.check_model(os.fspath(draft), full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker refuses the exported file: {_short(error)}") from error
    return files


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
            for sub in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
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


def _agree(torch: Any, module: Any, document: Document, draft: Path) -> None:
    """Run the file as a sampler would, beside the module, at several batch sizes and times."""
    from .runtimes.registry import network

    try:
        model = load(draft)
    except ArtifactError as error:
        raise ExportError(f"the exported file is not what was asked for: {error}") from error
    file = network(model, "onnx", threads=1)
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        arrays = _example(document, batch, rng)
        cond = {c.name: arrays[c.name] for c in document.conditioning}
        bound = file.bind(batch, document.shape, cond)
        bound.x[...] = arrays[document.input]
        times = [float(t) for t in _times(document)]
        for t in times:
            time = torch.full((batch,), t, dtype=getattr(torch, document.time.dtype))
            with torch.no_grad():
                named = {name: torch.from_numpy(array) for name, array in cond.items()}
                expected = module(torch.from_numpy(arrays[document.input]), time, **named)
            expected = getattr(expected, "sample", expected).numpy()
            if expected.shape != bound.output.shape:
                raise ExportError(
                    f"the module returns {expected.shape} for a batch of {batch}; its shape and variance say {bound.output.shape}."
                )
            try:
                got = bound(t)
            except Exception as error:
                raise ExportError(f"the exported file does not run at batch {batch}: {_short(error)}") from error
            if not np.isfinite(expected).all():
                raise ExportError(f"the module returns NaN or Inf for noise at time {t}; there is nothing to compare with.")
            scale = max(float(np.abs(expected).max()), 1e-6)
            error_ = float(np.abs(got - expected).max()) / scale
            if not error_ <= TOLERANCE:
                raise ExportError(
                    f"the exported file differs from the module by {error_:.2g} of its output's scale at batch {batch}, time {t}; "
                    f"at most {TOLERANCE:g} is rounding. Is a size, a time or a random number baked in?"
                )


def _times(document: Document) -> list[float]:
    if document.time.convention != "timestep":
        return [0.25, 0.75]
    last = document.schedule.num_train_timesteps - 1 if document.schedule else 0
    return [0, last // 3, last]


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
