"""Training: from data to a trained network. Needs torch; sampling from an artifact does not use this package.

Names are loaded on first use, so that a configuration is checked before torch is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError, install_hint

if importlib.util.find_spec("torch") is None:
    raise MissingDependencyError(f"diffuse_fast.training needs torch: {install_hint('train')}")

_HOME = {
    "LearnedScheduleObjective": "objectives",
    "LogSNRNetwork": "objectives",
    "Objective": "objectives",
    "TrainConfig": "config.train_config",
    "TrainRecord": "run.results",
    "TrainResult": "run.results",
    "VariationalObjective": "objectives",
    "train": "run.loop",
}

__all__ = [
    "LearnedScheduleObjective", "LogSNRNetwork", "Objective", "TrainConfig", "TrainRecord", "TrainResult", "VariationalObjective",
    "data", "train",
]  # fmt: skip

if TYPE_CHECKING:
    from . import data
    from .config.train_config import TrainConfig
    from .objectives import LearnedScheduleObjective, LogSNRNetwork, Objective, VariationalObjective
    from .run.loop import train
    from .run.results import TrainRecord, TrainResult


def __getattr__(name: str) -> Any:
    if name == "data":
        return importlib.import_module(".data", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
