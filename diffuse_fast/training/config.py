"""How to train: one frozen record, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError, ArgumentTypeError
from .objectives import TARGETS


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run needs besides network, data and schedule.

    Attributes:
        steps: Optimizer steps.
        batch_size: Samples per step.
        prediction_type: What the network learns to predict: ``epsilon``, ``sample`` or ``v_prediction``.
        learning_rate: Of AdamW, after the warm-up.
        warmup_steps: Steps over which the rate rises linearly; from there it falls to 0 along half a cosine.
        weight_decay: Of AdamW.
        gradient_clip: Largest global norm of the gradient; None does not clip.
        ema_decay: Decay of the moving average of the weights, which is what a run returns.
        condition_dropout: Probability with which a label is replaced by the null class (classifier-free guidance).
        seed: Of everything random: order of the data, times, noise, dropout.

    Raises:
        ArgumentError: A value is out of its range. ArgumentTypeError: a count is not a whole number.
    """

    steps: int = 5000
    batch_size: int = 64
    prediction_type: str = "epsilon"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    ema_decay: float = 0.999
    condition_dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        def check(name: str, fits: bool, expected: str) -> None:
            if not fits:
                raise ArgumentError(f"{name} is {getattr(self, name)!r}; it must be {expected}.")

        for name in ("steps", "batch_size", "warmup_steps", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
        check("steps", self.steps >= 1, "at least 1")
        check("batch_size", self.batch_size >= 1, "at least 1")
        check("warmup_steps", 0 <= self.warmup_steps < self.steps, f"from 0 to below steps, which is {self.steps}")
        check("seed", 0 <= self.seed < 2**63, "from 0 to below 2**63")
        check("prediction_type", self.prediction_type in TARGETS, f"one of {', '.join(TARGETS)}")
        check("learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        check("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0")
        check("gradient_clip", self.gradient_clip is None or 0 < self.gradient_clip < math.inf, "above 0, or None")
        check("ema_decay", 0 <= self.ema_decay < 1, "from 0 to below 1")
        check("condition_dropout", 0 <= self.condition_dropout <= 1, "from 0 to 1")
