"""What ``tune`` found, kept from one process to the next: a small JSON file for each artifact and machine.

They lie in ``$DIFFUSE_FAST_CACHE``, else ``$XDG_CACHE_HOME/diffuse_fast``, else ``~/.cache/diffuse_fast``;
``DIFFUSE_FAST_CACHE=off`` keeps none and reads none. What cannot be read, or was found with other packages or on another
machine, is as if it were not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
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
FORMAT = 2
PACKAGES = ("onnxruntime", "openvino", "MNN", "numpy")  # those whose version decides how fast something is

_MOST_THREADS = 1024  # more than any machine's cores is a damaged file, on which a runtime would stand still

_log = logging.getLogger("diffuse_fast")


@dataclass(frozen=True, slots=True)
class Choice:
    """How a network is run.

    Attributes:
        runtime: Name of the runtime.
        threads: Threads inside one call; None for :func:`diffuse_fast.machine.physical_cores`, which ``tune`` says as a number.
        split: Parts of a batch that run beside each other, each on ``threads`` threads.
        precision: What it computes in.
        seconds: The median time of a call when it was found; 0 where it was not timed.
        shortcuts: Whether it runs in float32-fast though float32 is asked for: ``tune`` found its error to be rounding.
        why: Why ``tune`` takes it, in words; empty where it does not.
    """

    runtime: str
    threads: int | None
    split: int = 1
    precision: str = "float32"
    seconds: float = 0.0
    shortcuts: bool = False
    why: str = ""

    @property
    def computes(self) -> str:
        """The precision that the runtime is told."""
        return "float32-fast" if self.shortcuts else self.precision

    @property
    def way(self) -> str:
        """The runtime, and what else it computes in than asked."""
        return f"{self.runtime} {self.computes}" if self.shortcuts else self.runtime


def folder() -> Path | None:
    """Where the answers are kept; None where none are."""
    told = os.environ.get(ENVIRONMENT)
    if told == "off":
        return None
    if told:
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "diffuse_fast"
    except RuntimeError:  # there is no home
        return None


def machine_key() -> dict[str, Any]:
    """What the answers depend on besides the artifact: processor, cores of this process, versions."""
    cpu = machine.cpu()
    return {
        "cpu": cpu.name or platform.processor() or platform.machine(),
        "instructions": hashlib.sha256(" ".join(sorted(cpu.flags or ())).encode()).hexdigest()[:16],
        "cores": machine.cores(),
        "versions": {"diffuse_fast": __version__, **{package: _version(package) for package in PACKAGES}},
    }


def _version(package: str) -> str | None:
    for distribution in (package, f"{package}-gpu"):  # the extra gpu installs onnxruntime under that name
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def path(model: Model, here: dict[str, Any]) -> Path | None:
    """The file that holds the answers for an artifact on this machine."""
    base = folder()
    if base is None:
        return None
    text = json.dumps({"artifact": model.sha256, **here}, sort_keys=True)
    return base / f"tune-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def read(model: Model) -> dict[str, dict[int, Choice]]:
    """What was found for an artifact on this machine: by precision, by batch size."""
    files = _files()
    if not files:  # where nothing was ever tuned, nobody waits for a checksum of the artifact
        return {}
    here = machine_key()
    file = path(model, here)
    raw = _raw(file, here) if file is not None and file in files else None
    if raw is None or raw["artifact"] != model.sha256:
        return {}
    found: dict[str, dict[int, Choice]] = {}
    for batch, choice in raw["choices"]:
        found.setdefault(choice.precision, {})[batch] = choice
    return found


def here() -> list[dict[str, Any]]:
    """Every answer that holds on this machine, of whatever model, as plain data."""
    found = []
    for file in _files():
        if (raw := _raw(file, machine_key())) is not None:
            said = ({"batch": n, "way": choice.way, **dataclasses.asdict(choice)} for n, choice in raw["choices"])
            found += [{"model": raw["model"], **one} for one in said]
    return found


def _files() -> list[Path]:
    """Those that may hold answers; none where the folder, or one on the way to it, cannot be looked into: a container's plain user
    may have the home of root."""
    base = folder()
    if base is None:
        return []
    try:
        # Files only: opening a pipe would wait for a writer.
        return sorted(file for file in base.iterdir() if file.match("tune-*.json") and file.is_file())
    except (FileNotFoundError, NotADirectoryError):  # nothing was ever kept
        return []
    except OSError as error:
        _log.warning("the tuned choices in %s are ignored: %s: %s", base, type(error).__name__, error)
        return []


def _raw(file: Path, here: dict[str, Any]) -> dict[str, Any] | None:
    """What a file holds, checked, its choices as pairs of batch size and :class:`Choice`; None where it is of another machine
    or other versions, or is none."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT or raw["machine"] != here:
            return None
        pairs = [(item.pop("batch"), Choice(**item)) for item in raw["choices"]]
        return {"model": str(raw["model"]), "artifact": raw["artifact"], "choices": [(n, _checked(n, c)) for n, c in pairs]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("the tuned choices in %s are ignored: %s: %s", file, type(error).__name__, error)
        return None


def _checked(batch: Any, choice: Choice) -> Choice:
    whole: tuple[Any, ...] = (batch, choice.threads, choice.split)
    words = (choice.runtime, choice.precision, choice.why)
    if (
        not all(type(n) is int and n >= 1 for n in whole)
        or not all(isinstance(s, str) for s in words)
        or (not isinstance(choice.seconds, float) or not isinstance(choice.shortcuts, bool))
    ):
        raise ValueError(f"{choice} for a batch of {batch} is none")
    if max(whole[1:]) > _MOST_THREADS:
        raise ValueError(f"{choice} takes more than {_MOST_THREADS} threads")
    return choice


def write(model: Model, found: dict[str, dict[int, Choice]]) -> Path | None:
    """Keep what was found, beside what was found before for other batch sizes and precisions; where, or None where nothing is
    kept. Of two processes that write at once, one wins; the file is always whole.

    Raises:
        OutputError: it cannot be written.
    """
    here = machine_key()
    file = path(model, here)
    if file is None:
        return None
    merged = read(model)
    for precision, by_batch in found.items():
        merged.setdefault(precision, {}).update(by_batch)
    raw = {
        "format": FORMAT,
        "artifact": model.sha256,
        "model": model.name,
        "machine": here,
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
        raise OutputError(f"{why}; {ENVIRONMENT} names another.") from None
    with replacing(file) as partial:
        partial.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    return file


def of(model: Model, precision: str) -> dict[int, Choice]:
    """What ``auto`` takes: the choices for a precision by batch size, of runtimes that are installed."""
    return read(model).get(precision, {})
