"""Results of ``tune`` on disk: a small JSON file for each artifact and machine.

The files are in ``$DIFFUSE_FAST_CACHE``, else ``$XDG_CACHE_HOME/diffuse_fast``, else ``~/.cache/diffuse_fast``.
``DIFFUSE_FAST_CACHE=off`` disables reading and writing. Files that cannot be read, or that were written with other package versions
or on another machine, are ignored. Files of an earlier format are ignored with a warning: their choices may name a runtime that is
gone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__, machine
from ..errors import OutputError
from ..files import replacing
from ..model import Model

ENVIRONMENT = "DIFFUSE_FAST_CACHE"
FORMAT = 3  # also in the names of the files
PACKAGES = ("onnxruntime", "openvino", "numpy")  # their versions affect speed

_MOST_THREADS = 1024  # a damaged file may have more, with which a runtime would hang

_log = logging.getLogger("diffuse_fast")


@dataclass(frozen=True, slots=True)
class Choice:
    """How to run a network.

    Attributes:
        runtime: Name of the runtime.
        threads: Threads inside one call; None for :func:`diffuse_fast.machine.physical_cores`. ``tune`` always gives a number.
        precision: The precision of its network calls.
        seconds: Median time of a call; 0 if it was not timed.
        why: Why ``tune`` chose it; empty if it did not.
    """

    runtime: str
    threads: int | None
    precision: str = "float32"
    seconds: float = 0.0
    why: str = ""


def folder() -> Path | None:
    """Return the folder of the cache; None if there is no cache."""
    value = os.environ.get(ENVIRONMENT)
    if value == "off":
        return None
    if value:
        return Path(value)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "diffuse_fast"
    except RuntimeError:  # no home folder
        return None


def machine_key() -> dict[str, Any]:
    """Return what the results depend on besides the artifact: the CPU, the cores of this process, package versions."""
    cpu = machine.cpu()
    return {
        "cpu": cpu.name or platform.processor() or platform.machine(),
        "instructions": hashlib.sha256(" ".join(sorted(cpu.flags or ())).encode()).hexdigest()[:16],
        "cores": machine.cores(),
        "versions": {"diffuse_fast": __version__, **{package: _version(package) for package in PACKAGES}},
    }


def _version(package: str) -> str | None:
    import importlib.metadata  # slow to import, and not needed where nothing was tuned

    for distribution in (package, f"{package}-gpu"):  # the extra gpu installs onnxruntime-gpu
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def path(model: Model, key: dict[str, Any]) -> Path | None:
    """Return the file of an artifact on the machine with a :func:`machine_key`; None if there is no cache."""
    base = folder()
    if base is None:
        return None
    text = json.dumps({"artifact": model.sha256, **key}, sort_keys=True)
    return base / f"tune{FORMAT}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def read(model: Model) -> dict[str, dict[int, Choice]]:
    """Return the choices for an artifact on this machine, by precision and batch size."""
    files = _files()
    if not files:  # do not compute the artifact's checksum if nothing was ever tuned
        return {}
    key = machine_key()
    file = path(model, key)
    raw = _parsed(file, key) if file is not None and file in files else None
    if raw is None or raw["artifact"] != model.sha256:
        return {}
    found: dict[str, dict[int, Choice]] = {}
    for batch, choice in raw["choices"]:
        found.setdefault(choice.precision, {})[batch] = choice
    return found


def entries() -> list[dict[str, Any]]:
    """Return the choices for all models on this machine as plain data."""
    found = []
    for file in _files():
        if (raw := _parsed(file, machine_key())) is not None:
            found += [{"model": raw["model"], "batch": n, **dataclasses.asdict(choice)} for n, choice in raw["choices"]]
    return found


def _files() -> list[Path]:
    """Return the files of the cache; none if its folder cannot be read, as when a container's user has the home of root."""
    base = folder()
    if base is None:
        return []
    try:
        # Regular files only: opening a pipe would wait for a writer.
        found = sorted(file for file in base.iterdir() if file.match("tune*-*.json") and file.is_file())
    except (FileNotFoundError, NotADirectoryError):  # nothing was ever tuned
        return []
    except OSError as error:
        _log.warning("the tuned choices in %s are ignored: %s: %s", base, type(error).__name__, error)
        return []
    current = [file for file in found if file.name.startswith(f"tune{FORMAT}-")]
    if len(current) < len(found):
        _warn_of_old(base)
    return current


@functools.cache  # once per folder
def _warn_of_old(base: Path) -> None:
    _log.warning(
        "choices of an earlier version of tune in %s are ignored: they may name a runtime that is gone, as mnn is. Tune again, and "
        "delete the files tune*.json that do not begin with tune%d-.",
        base,
        FORMAT,
    )


def _parsed(file: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Parse and check a file, with its choices as pairs of batch size and :class:`Choice`.

    Returns None for a file of another machine or other versions, and for a damaged one.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT or raw["machine"] != key:
            return None
        pairs = [(item.pop("batch"), Choice(**item)) for item in raw["choices"]]
        return {"model": str(raw["model"]), "artifact": raw["artifact"], "choices": [(n, _checked(n, c)) for n, c in pairs]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("the tuned choices in %s are ignored: %s: %s", file, type(error).__name__, error)
        return None


def _checked(batch: Any, choice: Choice) -> Choice:
    threads: Any = choice.threads
    integers = all(type(n) is int and n >= 1 for n in (batch, threads)) and threads <= _MOST_THREADS
    texts = all(isinstance(s, str) for s in (choice.runtime, choice.precision, choice.why))
    if not (integers and texts and isinstance(choice.seconds, float)):
        raise ValueError(f"{choice} for a batch of {batch} is invalid")
    return choice


def write(model: Model, found: dict[str, dict[int, Choice]]) -> Path | None:
    """Store choices, and keep those of other batch sizes and precisions.

    If two processes write at the same time, one of them wins; the file is always complete.

    Returns:
        The file; None if there is no cache.

    Raises:
        OutputError: the file cannot be written.
    """
    key = machine_key()
    file = path(model, key)
    if file is None:
        return None
    merged = read(model)
    for precision, by_batch in found.items():
        merged.setdefault(precision, {}).update(by_batch)
    raw = {
        "format": FORMAT,
        "artifact": model.sha256,
        "model": model.name,
        "machine": key,
        "choices": [
            {"batch": batch, **dataclasses.asdict(choice)}
            for by_batch in merged.values()
            for batch, choice in sorted(by_batch.items())
        ],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"the folder {str(file.parent)!r} cannot be made: {error.strerror}"
        raise OutputError(f"{why}; set {ENVIRONMENT} to another folder.") from None
    with replacing(file) as partial:
        partial.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    return file


def choices(model: Model, precision: str) -> dict[int, Choice]:
    """Return the choices for an artifact and precision by batch size, for ``auto``."""
    return read(model).get(precision, {})
