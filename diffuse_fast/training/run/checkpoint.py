"""Checkpoints: one safetensors file each, written atomically; never a pickle."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ArgumentError, MissingDependencyError, OutputError, install_hint
from ...files import replacing

log = logging.getLogger(__name__)

KEY = "diffuse_fast_checkpoint"
VERSION = 1
NAME = re.compile(r"checkpoint-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by name, and its JSON document."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], document: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, then remove all but the ``keep`` newest.

    Raises:
        OutputError: the checkpoint cannot be written, for example on a full disk; older ones are kept.
    """
    torch_files = _safetensors()
    from safetensors import SafetensorError

    path = folder / f"checkpoint-{step:08d}.safetensors"
    metadata = {KEY: json.dumps({"version": VERSION, **document}, allow_nan=False)}
    with replacing(path) as partial:
        try:
            torch_files.save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata=metadata)
            # Flushed before the rename, so that a power cut cannot leave the name without the data.
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
        except SafetensorError as error:
            raise OutputError(f"cannot write {str(path)!r}: {error}.") from error
    for old in found(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("checkpoint-*.safetensors") if NAME.fullmatch(p.name))


def sweep(folder: Path) -> None:
    """Remove the partial files of killed runs."""
    for partial in folder.glob(".checkpoint-*.safetensors"):
        partial.unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest intact checkpoint in a folder; damaged ones are skipped with a warning. None if there is no checkpoint.

    Raises:
        ArgumentError: all checkpoints are damaged.
    """
    errors = []
    for path in reversed(found(folder)):
        try:
            return read(path)
        except ArgumentError as error:
            log.warning("%s", error)
            errors.append(str(error))
    if errors:
        raise ArgumentError(f"there is no intact checkpoint in {folder}: {errors[0]}")
    return None


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        ArgumentError: the file cannot be read, is truncated, is a pickle, or is not a checkpoint of this version.
    """
    files = _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[KEY])
        if document["version"] != VERSION:
            raise ArgumentError(f"{path} is a checkpoint of version {document['version']}; this release reads version {VERSION}.")
        tensors = files.load_file(path)
        _check(document, tensors)
        return Checkpoint(tensors, document)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(
            f"{path} is not an intact checkpoint ({type(error).__name__}: {error}). Only safetensors files are read."
        ) from error


def _check(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint has everything that a run needs to resume.

    Raises:
        KeyError, TypeError, ValueError: something is missing or has a wrong type or value.
    """
    for name, kind in (("step", int), ("seconds", int | float), ("run", dict), ("versions", dict)):
        if not isinstance(document[name], kind) or isinstance(document[name], bool):
            raise TypeError(f"{name} is a {type(document[name]).__name__}")
    if not 0 <= document["seconds"] < math.inf:
        raise ValueError(f"seconds is {document['seconds']}")
    if tuple(tensors["losses"].shape) != (document["step"],):
        raise ValueError(f"it has {tuple(tensors['losses'].shape)} losses of {document['step']} steps")


def differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the differences of two documents, one line each."""
    lines = []
    for name in dict.fromkeys([*then, *now]):
        a, b = then.get(name), now.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name} was {a!r} and is {b!r}")
    return lines


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingDependencyError(f"checkpoints need safetensors: {install_hint('train')}") from error
    return safetensors.torch
