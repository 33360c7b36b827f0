"""How to train: one frozen record, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError
from ..plan import PREDICTION_TYPES

PRECISIONS = ("float32", "bfloat16")
# A resumed run may have others. All but ``steps`` change what is written, not what is computed.
FREE = ("steps", "checkpoint_every", "keep_checkpoints", "sample_every", "evaluate_every", "log_every", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run needs besides network, data and schedule.

    Attributes:
        steps: Optimizer steps. A resumed run may have more or fewer than it began with: its learning rate then falls to 0 over
            the new number.
        batch_size: Samples per step, over all processes.
        micro_batch: Samples per pass through the network; gradients of passes are added up (gradient accumulation), on one process
            or several. None is the whole batch, or each process's part of it. The batches of a run, its noise and its gradients
            are a function of ``seed``, ``batch_size`` and ``micro_batch``, whatever the number of processes.
        prediction_type: What the network learns to predict: one of the schedule's ``prediction_types``. An objective that is
            given has its own.
        learning_rate: Of AdamW, after the warm-up.
        warmup_steps: Steps over which the rate rises linearly; from there it falls to 0 along half a cosine.
        weight_decay: Of AdamW.
        gradient_clip: Largest global norm of the gradient; None does not clip.
        ema_decay: Decay of the moving average of the weights, which is what a run returns.
        condition_dropout: Probability with which a label is replaced by the null class (classifier-free guidance).
        precision: ``float32``, or ``bfloat16`` for autocast (the weights stay float32, and no loss scaling is needed).
        compile: Run the network through ``torch.compile``.
        sharded: With several processes, shard weights, gradients and optimizer state among them (FSDP) instead of copying (DDP).
        seed: Of everything random: order of the data, times, noise, dropout.
        checkpoint_every: Steps between checkpoints, where there is a folder for them; the last step has one always.
        keep_checkpoints: How many of the newest are kept.
        sample_every: Steps between sample grids; None draws none.
        evaluate_every: Steps between calls of ``evaluate``.
        log_every: Steps that a line of ``log.csv`` is the mean of.
        tensorboard: Write TensorBoard's event files too.

    Raises:
        ArgumentError: A value is out of its range. ArgumentTypeError: a count is not a whole number.
    """

    steps: int = 5000
    batch_size: int = 64
    micro_batch: int | None = None
    prediction_type: str = "epsilon"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    ema_decay: float = 0.999
    condition_dropout: float = 0.1
    precision: str = "float32"
    compile: bool = False
    sharded: bool = False
    seed: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    sample_every: int | None = None
    evaluate_every: int = 1000
    log_every: int = 50
    tensorboard: bool = False

    def __post_init__(self) -> None:
        def check(name: str, fits: bool, expected: str) -> None:
            if not fits:
                raise ArgumentError(f"{name} is {getattr(self, name)!r}; it must be {expected}.")

        counts = (
            "steps", "batch_size", "micro_batch", "warmup_steps", "seed", "checkpoint_every", "keep_checkpoints", "sample_every",
            "evaluate_every", "log_every",
        )  # fmt: skip
        for name in counts:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | None) or (value is None and self._default(name) is not None):
                raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
            if name not in ("warmup_steps", "seed"):
                check(name, value is None or value >= 1, "at least 1")
        for name in ("compile", "sharded", "tensorboard"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentTypeError(f"{name} is {getattr(self, name)!r}; it must be true or false.")
        check(
            "micro_batch", self.micro_batch is None or self.batch_size % self.micro_batch == 0,
            f"a divisor of batch_size, which is {self.batch_size}",
        )  # fmt: skip
        check("warmup_steps", 0 <= self.warmup_steps < self.steps, f"from 0 to below steps, which is {self.steps}")
        check("seed", 0 <= self.seed < 2**63, "from 0 to below 2**63")
        check("prediction_type", self.prediction_type in PREDICTION_TYPES, f"one of {', '.join(PREDICTION_TYPES)}")
        check("learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        check("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0")
        check("gradient_clip", self.gradient_clip is None or 0 < self.gradient_clip < math.inf, "above 0, or None")
        check("ema_decay", 0 <= self.ema_decay < 1, "from 0 to below 1")
        check("condition_dropout", 0 <= self.condition_dropout <= 1, "from 0 to 1")
        check("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.__dataclass_fields__[name].default

    def binding(self) -> dict[str, Any]:
        """What a run must not change when it is resumed."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in FREE}
