"""Whether the compiled core runs a network, for ``inspect`` and ``doctor``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import Model
    from ..program.program import Program


def of_model(model: Model) -> dict[str, Any]:
    """Whether a model's network lowers: its size, or why not."""
    from ..program.lower import lower_model

    return _report(lambda: lower_model(model))


def of_name(name: str) -> dict[str, Any]:
    """The same of a bundled model, an artifact, or any other ONNX file."""
    from ..errors import ArtifactError
    from ..model import load
    from ..program.lower import lower_file

    try:
        return of_model(load(name))
    except ArtifactError:
        if not Path(name).is_file():
            raise
        return _report(lambda: lower_file(Path(name)))


def _report(lower: Callable[[], Program]) -> dict[str, Any]:
    from ..errors import ArtifactError, UnsupportedError
    from ..program.summary import summarize

    try:
        return {"lowers": True, "why_not": None, **dataclasses.asdict(summarize(lower()))}
    except (ArtifactError, UnsupportedError) as error:
        return {"lowers": False, "why_not": str(error)}


def rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of a table."""
    if not report["lowers"]:
        return [("runs", "no"), ("why", report["why_not"])]
    kinds, prepared, kept = report["kinds"], report["prepared"], report["row_bytes"]
    when = {
        "load": "when it is loaded",
        "time": "once per time",
        "condition": "once per condition",
        "pair": "once per pair of them",
    }
    return [
        ("runs", "yes"),
        ("operations", f"{sum(kinds.values())} per call: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())),
        ("prepared", ", ".join(f"{prepared[name]} {text}" for name, text in when.items() if prepared[name]) or "nothing"),
        ("weights", f"{report['weight_bytes']:,} bytes"),
        ("activations", f"{report['activation_bytes']:,} bytes per sample, before memory is reused"),
        ("kept", ", ".join(f"{size:,} bytes per {name}" for name, size in kept.items() if size) or "nothing"),
    ]
