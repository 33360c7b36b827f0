"""Errors of the native runtime that ``diffuse-fast doctor MODEL`` measured, for files that do not hold them.

A small JSON file for each model file, in the folder of the results of ``tune`` (:mod:`..tuning_cache`). Files that cannot be read,
or of another version of programs, are ignored.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ...artifact.document import Native
from ...artifact.read_document import native_from
from ...errors import ArtifactError, OutputError
from ...files import replacing
from ...model import Model
from ...program.program import VERSION
from ..tuning_cache import folder

_log = logging.getLogger("diffuse_fast")


def measured(model: Model) -> Native | None:
    """The errors in a model's document, or those that ``doctor`` stored; None if there are none."""
    if model.native is not None:
        return model.native
    base = folder()
    try:
        if base is None or not any(base.glob("native-*.json")):
            return None  # do not compute the checksum of the file
    except OSError:
        return None
    return read(model.sha256)


def read(sha256: str) -> Native | None:
    """The errors that were stored for the model file with this checksum."""
    file = _file(sha256)
    try:
        if file is None or not file.is_file():
            return None
        raw = json.loads(file.read_text(encoding="utf-8"))
        found = native_from(raw["native"]) if raw["sha256"] == sha256 else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, ArtifactError) as error:
        _log.warning("the measured errors in %s are ignored: %s: %s", file, type(error).__name__, error)
        return None
    return found if found is not None and found.program_version == VERSION else None


def write(sha256: str, found: Native) -> None:
    """Store errors. A folder that cannot be written is only logged: they are shown all the same."""
    file = _file(sha256)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.write_text(json.dumps({"sha256": sha256, "native": found.to_json()}, indent=1), encoding="utf-8")
    except (OSError, OutputError) as error:
        _log.warning("the measured errors cannot be stored in %s: %s", file, error)


def _file(sha256: str) -> Path | None:
    base = folder()
    return None if base is None else base / f"native-{sha256[:32]}.json"
