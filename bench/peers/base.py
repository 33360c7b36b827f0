"""The interface of a peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

NUM_TRAIN_TIMESTEPS = 1000


class Unavailable(Exception):
    """A peer cannot do this job, for the reason in the message."""


@dataclass(frozen=True)
class Job:
    """Samples to draw: DDIM (eta 0, x0 clipped to [-1, 1]) of ``steps`` steps with a network of :data:`bench.networks.NETWORKS`."""

    network: str
    batch: int
    steps: int
    threads: int

    @property
    def spacing(self) -> str:
        """``trailing``, which diffusers computes wrongly if the steps do not divide the timesteps; then ``leading``."""
        return "trailing" if NUM_TRAIN_TIMESTEPS % self.steps == 0 else "leading"


class Peer(Protocol):
    """A library set up for a job."""

    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        """The network's output for x (batch, *shape), float32, all at timestep ``t``; the next call may overwrite it."""
        ...

    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        """Samples (batch, *shape), float32, from that noise, or from noise it draws."""
        ...
