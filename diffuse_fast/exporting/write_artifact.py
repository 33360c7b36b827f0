"""Export a torch module to one self-describing .onnx file.

The file is built in a temporary folder. It gets its name only after it has passed the ONNX checker and agreed with the module at
several batch sizes, under onnxruntime and, where that runs it, in the native runtime. The errors of the native runtime are written
into its document.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact.document import Range
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    ExportError,
    MissingDependencyError,
    OutputError,
    UnsupportedError,
    install_hint,
)
from ..model import Model, load, rewritten
from ..program.lower import lower_model
from ..runtimes import network
from ..runtimes.native.error import inputs_of, measure
from ..schedule import Schedule
from .compare import compare
from .convert import build, quiet, trace
from .document import OPSETS, make_document

_log = logging.getLogger("diffuse_fast")

MAX_SINGLE_FILE = 2_000_000_000  # bytes; protobuf ends at 2^31 - 1


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
            object with it as ``.sample``, as diffusers' networks do.
        path: The file to write; must end in ``.onnx``. An existing file is replaced.
        shape: Shape of one sample.
        schedule: The noise schedule of its training.
        prediction_type: What the module predicts: ``epsilon``, ``sample``, ``v_prediction``, ``flow``, ``denoised``, ``score`` or
            ``edm``; one of the schedule's ``prediction_types``.
        name: A short name; None is the name of the file.
        conditioning: The module's other inputs, each ``{"name": ..., "dtype": "int64", "shape": [], "null": None, "classes": None,
            "class_names": None}``, with these defaults. ``null`` is the value for "no condition", ``classes`` makes it a label,
            and ``class_names`` are names for its classes.
        convention: The form of its time input, one of the schedule's ``time_conventions``; None is the first.
        time_dtype: dtype of its time input; None is ``int64`` for timesteps and ``float32`` otherwise.
        value_range: Range of its training data; None for unbounded data.
        clip: Default bounds of the data prediction; None does not clip.
        variance: ``none``, ``learned`` or ``learned_range``.
        input_scale: ``none`` if it takes the state alpha·x0 + sigma·ε of the schedule, ``1/alpha`` if it takes
            x0 + (sigma/alpha)·ε. None is ``none``; required for a module that predicts ``denoised`` with ``Schedule.edm()``.
        training: Provenance, anything that JSON can hold. The same provenance gives the same file.
        license: SPDX expression.
        opset: 23 or 21; None is 23, or 21 if torch cannot convert to 23 or onnxruntime does not run the result.
        max_single_file: Weights of more bytes than this are written to ``<path>.data``.

    Returns:
        The written file, loaded.

    Raises:
        ArgumentError, ArgumentTypeError: an argument cannot be used.
        ExportError: torch cannot export the module, or the file does not compute what the module computes, under onnxruntime or in
            the native runtime.
        OutputError: the path cannot be written.
        MissingDependencyError: torch, onnx or onnxruntime is missing.

    Example:
        >>> import diffuse_fast as df
        >>> net = df.nn.UNet(1, channels=16, groups=8, num_classes=10).eval()                   # doctest: +SKIP
        >>> model = df.export(net, "net.onnx", shape=(1, 8, 8), schedule=df.Schedule.cosine(),  # doctest: +SKIP
        ...     prediction_type="v_prediction", clip=(-1, 1), conditioning=[{"name": "label", "null": 10, "classes": 10}])
    """
    torch = _require("torch")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    target = _resolve_target(path)
    if opset is not None and opset not in OPSETS:
        raise ArgumentError(f"opset is {opset!r}; it must be {' or '.join(map(str, OPSETS))}, or None.")
    document = make_document(
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
    _check_module(module, torch)

    with _staging(target) as folder, quiet():
        draft = folder / target.name
        traced = trace(torch, module, document)
        opsets = OPSETS if opset is None else (opset,)
        for version in opsets:
            try:
                written, file = build(torch, traced, document, version, draft, max_single_file)
                break
            except ExportError:
                if version == opsets[-1]:
                    raise
        cause = "Does the module contain a fixed size, time or random number?"
        compare(torch, module, document, {"the exported file": file}, cause)
        _measure_native(torch, module, draft)
        # The external data first, so that the model file never exists without them.
        for path in reversed(written):
            os.replace(path, target.parent / path.name)
        if len(written) == 1:
            target.with_name(target.name + ".data").unlink(missing_ok=True)  # of a replaced file
    return load(target)


def _measure_native(torch: Any, module: Any, draft: Path) -> None:
    """If the native runtime runs a draft, compare it with the module in each precision and add its errors to the document."""
    model = load(draft)
    try:
        program = lower_model(model)
    except (UnsupportedError, ArtifactError) as error:
        _log.info("%s: the native runtime does not run it: %s", model.name, error)
        return
    found = measure(program, model.path, inputs_of(model, program))
    model = rewritten(model, draft, native=found)
    native = {f"the native runtime in {precision}": network(model, "native", precision=precision) for precision in found.errors}
    compare(torch, module, model, native, "This is a fault of diffuse_fast; please report it.")


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(f"df.export needs {package} ({error}): {install_hint('train')}") from None


def _resolve_target(path: Any) -> Path:
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


def _check_module(module: Any, torch: Any) -> None:
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"module is a {type(module).__name__}; it must be a torch.nn.Module.")
    if any(m.training for m in module.modules()):
        raise ArgumentError("the module is in training mode, so its dropout would be exported; call module.eval() first.")
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type != "cpu":
            raise ArgumentError(f"the module has tensors on the device {tensor.device}; call module.cpu() first.")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ArgumentError(f"the module has parameters of {tensor.dtype}; export it in float32: module.float().")


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target, on the same file system, so that the final rename is atomic."""
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
