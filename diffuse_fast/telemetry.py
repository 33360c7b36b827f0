"""Switch off the telemetry of the runtimes unless the user asks for it (``docs/runtimes.md``).

onnxruntime 1.32 and later contacts Microsoft within seconds of being imported and keeps a database in the user's cache folder.
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
    """Switch off onnxruntime's telemetry for this process and its children, unless the user has set the variable.

    This has no effect if onnxruntime was imported before; ``diffuse-fast doctor`` and :func:`started` report that.
    """
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(ONNXRUNTIME, "1")


@contextmanager
def declined_by_openvino() -> Iterator[None]:
    """Context in which ``import openvino`` finds no ``openvino_telemetry`` and uses its own stub, which sends nothing.

    Has no effect if the user ran ``opt_in_out --opt_in``, or if the module was imported before.
    """
    if "openvino_telemetry" in sys.modules or _opted_in():
        yield
        return
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes the import system raise ImportError
    try:
        yield
    finally:
        sys.modules.pop("openvino_telemetry", None)


def started() -> list[str]:
    """Return the packages that were imported with telemetry on, before this package could switch it off."""
    out = []
    if "onnxruntime" in sys.modules and ONNXRUNTIME not in os.environ:
        out.append("onnxruntime")
    if sys.modules.get("openvino_telemetry") is not None and not _opted_in():
        out.append("openvino")
    return out


def _opted_in() -> bool:
    """Return whether OpenVINO's file has the user's consent."""
    try:
        return (Path.home() / "intel" / "openvino_telemetry").read_text().strip() == "1"
    except (OSError, RuntimeError, ValueError):
        return False
