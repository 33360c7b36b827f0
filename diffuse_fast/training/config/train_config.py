"""How to train: one frozen record, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ArgumentError, ArgumentTypeError
from ...plans.plan import PREDICTION_TYPES

PRECISIONS = ("float32", "bfloat16")
KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
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
        warmup_steps: Steps over which the rate rises linearly; from there it falls to 0 along half a cosine. None is a tenth of
            ``steps``, 100 at most.
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
        ArgumentError: Values are out of their ranges; the message names all. ArgumentTypeError: they are of a wrong type.
    """

    steps: int = 5000
    batch_size: int = 64
    micro_batch: int | None = None
    prediction_type: str = "epsilon"
    learning_rate: float = 1e-3
    warmup_steps: int | None = None
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
        found = self.faults(dataclasses.asdict(self))
        if found:
            error = ArgumentTypeError if all(of_type for _, of_type in found) else ArgumentError
            raise error(" ".join(text for text, _ in found))

    @classmethod
    def faults(cls, options: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """Everything that is wrong with settings (those left out have their defaults), and of each whether it is its type."""
        given = {field.name: options.get(field.name, field.default) for field in dataclasses.fields(cls)}
        found: list[tuple[str, bool]] = []
        right = {name: value for name, value in given.items() if _is(cls.__annotations__[name], value)}
        for name in given:
            if name not in right:
                kind = cls.__annotations__[name].removesuffix(" | None")
                found.append((f"{name} is {given[name]!r}; it must be {KINDS[kind]}.", True))

        def check(name: str, fits: Callable[[Any], bool], expected: str, *, optional: bool = False) -> None:
            if name in right and not (optional and right[name] is None) and not fits(right[name]):
                found.append((f"{name} is {right[name]!r}; it must be {expected}.", False))

        for name in (
            "steps",
            "batch_size",
            "micro_batch",
            "checkpoint_every",
            "keep_checkpoints",
            "sample_every",
            "evaluate_every",
            "log_every",
        ):
            check(name, lambda value: value >= 1, "at least 1", optional=True)
        steps, batch_size = right.get("steps", math.inf), right.get("batch_size", 0)
        check(
            "micro_batch",
            lambda value: value < 1 or batch_size % value == 0,
            f"a divisor of batch_size, which is {batch_size}",
            optional=True,
        )
        if steps >= 1:
            check("warmup_steps", lambda value: 0 <= value < steps, f"from 0 to below steps, which is {steps}", optional=True)
        check("seed", lambda value: 0 <= value < 2**63, "from 0 to below 2**63")
        check("prediction_type", lambda value: value in PREDICTION_TYPES, f"one of {', '.join(PREDICTION_TYPES)}")
        check("learning_rate", lambda value: 0 < value < math.inf, "above 0")
        check("weight_decay", lambda value: 0 <= value < math.inf, "at least 0")
        check("gradient_clip", lambda value: 0 < value < math.inf, "above 0, or None", optional=True)
        check("ema_decay", lambda value: 0 <= value < 1, "from 0 to below 1")
        check("condition_dropout", lambda value: 0 <= value <= 1, "from 0 to 1")
        check("precision", lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        return found

    @property
    def warmup(self) -> int:
        """``warmup_steps``, or what follows from ``steps``."""
        return min(100, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def binding(self) -> dict[str, Any]:
        """What a run must not change when it is resumed."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in FREE}


def _is(annotation: str, value: Any) -> bool:
    if value is None:
        return annotation.endswith(" | None")
    kind = annotation.removesuffix(" | None")
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    return isinstance(value, {"int": int, "float": int | float, "str": str}[kind])


# How the bundled model of the digits was trained.
DIGITS = TrainConfig(steps=6000, batch_size=64, prediction_type="v_prediction", learning_rate=2e-3)
