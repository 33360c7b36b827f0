"""What ran a network, for the record of a result."""

from __future__ import annotations

from typing import Any

from ..model import Model
from .registry import network


def record(model: Model, runtime: str, precision: str, threads: int | None) -> dict[str, Any]:
    """The runtime and the precision of a model's network on the CPU, as JSON data; of ``native`` all that determines the bits.

    Args:
        model, runtime, precision, threads: As for :func:`.registry.network`. A runtime ``tuned`` stands for what ``tune`` chose.
    """
    name = network(model, runtime, threads=threads, precision=precision).name
    if name != "native":
        return {"runtime": name, "precision": precision}
    from .native import identity

    return {"runtime": name, **identity(model, precision)}
