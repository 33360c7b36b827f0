"""The training wing: from arrays to a trained network. Needs torch; sampling from an artifact never comes here."""

from __future__ import annotations

from ..errors import RuntimeUnavailableError, install_hint

try:
    import torch  # noqa: F401  (asked for here, so that its absence is told in one place)
except ImportError as error:
    raise RuntimeUnavailableError(f"diffuse_fast.training needs torch: {install_hint('train')}") from error

from . import data
from .config import TrainConfig
from .loop import train
from .objectives import LearnedScheduleObjective, LogSNRNetwork, Objective, VariationalObjective
from .record import TrainRecord, TrainResult

__all__ = [
    "LearnedScheduleObjective", "LogSNRNetwork", "Objective", "TrainConfig", "TrainRecord", "TrainResult", "VariationalObjective",
    "data", "train",
]  # fmt: skip
