"""The training settings: a frozen dataclass, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ArgumentError, ArgumentTypeError
from ...plans.plan import PREDICTION_TYPES

PRECISIONS = ("float32", "bfloat16")
KINDS = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false"}
# A resumed run may change these. All but ``steps`` affect only what is written, not what is computed.
FREE = ("steps", "checkpoint_every", "keep_checkpoints", "sample_every", "evaluate_every", "log_every", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training run besides network, data and schedule.

    Attributes:
        steps: Optimizer steps. A resumed run may change this; its learning rate then falls to 0 over the new number.
        batch_size: Samples per step, over all processes.
        micro_batch: Samples per forward pass; the gradients of the passes are accumulated. None is the full batch, or each
            process's part of it. Batches, noise and gradients depend on ``seed``, ``batch_size`` and ``micro_batch``, and not on
            the number of processes.
        prediction_type: What the network predicts: one of the schedule's ``prediction_types``. Ignored if an objective is given.
        learning_rate: AdamW's learning rate after the warm-up.
        warmup_steps: Steps over which the rate rises linearly; it then falls to 0 along half a cosine. None is a tenth of
            ``steps``, at most 100.
        weight_decay: AdamW's weight decay.
        gradient_clip: Maximum global norm of the gradient; None does not clip.
        ema_decay: Decay of the moving average of the weights, which a run returns.
        condition_dropout: Probability of replacing a label by the null class (classifier-free guidance).
        precision: ``float32``, or ``bfloat16`` for autocast (the weights stay float32, and no loss scaling is needed).
        compile: Run the network through ``torch.compile``.
        sharded: With several processes, shard weights, gradients and optimizer state (FSDP) instead of replicating them (DDP).
        seed: Seed of all randomness: order of the data, times, noise, dropout.
        checkpoint_every: Steps between checkpoints, if there is a folder; the last step always writes one.
        keep_checkpoints: Number of newest checkpoints to keep.
        sample_every: Steps between sample grids; None draws none.
        evaluate_every: Steps between calls of ``evaluate``.
        log_every: Steps that each line of ``log.csv`` averages.
        tensorboard: Write TensorBoard event files too.

    Raises:
        ArgumentError: values are out of range; the message names all of them. ArgumentTypeError: values have a wrong type.
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
        """List the faults of settings (missing ones have their defaults), each with whether it is one of type."""
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
        """``warmup_steps``, or its default."""
        return min(100, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def binding(self) -> dict[str, Any]:
        """The settings that a resumed run must not change."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in FREE}


def _is(annotation: str, value: Any) -> bool:
    if value is None:
        return annotation.endswith(" | None")
    kind = annotation.removesuffix(" | None")
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    return isinstance(value, {"int": int, "float": int | float, "str": str}[kind])
