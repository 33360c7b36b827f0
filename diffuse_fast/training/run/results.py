"""The result of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..config.train_config import TrainConfig


@dataclass(frozen=True)
class TrainRecord:
    """The record of a run: the loss of every step, the duration, and what is needed to repeat it.

    ``samples`` is the number of samples in the data, None for a generator; ``broken`` names the images that were skipped.
    """

    config: TrainConfig
    losses: tuple[float, ...]
    seconds: float
    parameters: int
    samples: int | None
    threads: int
    processes: int
    broken: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON data. The losses are averaged over fifty equal parts of the run."""
        parts = np.array_split(np.array(self.losses), min(50, len(self.losses)))
        return {
            **dataclasses.asdict(self),
            "losses": [float(f"{part.mean():.5g}") for part in parts],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class TrainResult:
    """The trained network (moving average of the weights, in eval mode) and the record of the run."""

    network: nn.Module
    record: TrainRecord
