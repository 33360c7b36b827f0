"""Telemetry of the runtimes: off unless the user asks for it (``docs/runtimes.md``).

onnxruntime, from 1.32 on, contacts its maker within seconds of being imported and keeps a database in the user's cache folder.
Importing openvino reports the import to an analytics service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"  # read once, when onnxruntime is imported


def decline() -> None:
    """Switch onnxruntime's telemetry off for this process and its children, unless the user has set the variable. Where
    onnxruntime is imported already it is too late: ``diffuse-fast doctor`` and :func:`started` say so."""
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(ONNXRUNTIME, "1")


@contextmanager
def declined_by_openvino() -> Iterator[None]:
    """Within it, import openvino: it then finds no ``openvino_telemetry`` and uses its own stub, which sends nothing.

    A user who ran ``opt_in_out --opt_in``, and a module that is imported already, are left alone.
    """
    if "openvino_telemetry" in sys.modules or _opted_in():
        yield
        return
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        yield
    finally:
        sys.modules.pop("openvino_telemetry", None)


def started() -> list[str]:
    """Packages whose telemetry was on when they were imported, before this package could switch it off."""
    out = []
    if "onnxruntime" in sys.modules and ONNXRUNTIME not in os.environ:
        out.append("onnxruntime")
    if sys.modules.get("openvino_telemetry") is not None and not _opted_in():
        out.append("openvino")
    return out


def _opted_in() -> bool:
    """Whether the user's consent is on file, where OpenVINO keeps it."""
    try:
        return (Path.home() / "intel" / "openvino_telemetry").read_text().strip() == "1"
    except (OSError, RuntimeError, ValueError):
        return False
