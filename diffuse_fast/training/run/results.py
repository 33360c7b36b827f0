"""What happened in a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..config.train_config import TrainConfig


@dataclass(frozen=True)
class TrainRecord:
    """What happened in a run: the losses of every step, how long it took, and what it would take to repeat it.

    ``samples`` is the number of samples in the data, None for a generator; ``broken`` names the pictures that were skipped.
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
        """Plain data. The losses are averaged over fifty equal stretches of the run."""
        stretches = np.array_split(np.array(self.losses), min(50, len(self.losses)))
        return {
            **dataclasses.asdict(self),
            "losses": [float(f"{stretch.mean():.5g}") for stretch in stretches],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class TrainResult:
    """The trained network (moving average of the weights, in eval mode) and the record of the run."""

    network: nn.Module
    record: TrainRecord
