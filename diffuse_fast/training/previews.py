"""Samples of the network as it is now, from the same noise every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ..engine import sample
from ..errors import ArgumentError
from ..files import replacing
from ..pictures import check_shape, grid, png

if TYPE_CHECKING:
    from ..schedule import Schedule

SAMPLES, STEPS, SEED = 16, 20, 0


def preview(
    network: nn.Module, folder: Path, step: int, *, shape: tuple[int, ...], schedule: Schedule, prediction_type: str,
    clip: tuple[float, float] | None,
) -> np.ndarray | None:  # fmt: skip
    """Draw 16 samples in 20 steps and write them into ``folder/samples``: pictures as a PNG, others as ``.npy``.

    A network with classes draws them in turn.

    Returns:
        The grid of pictures, (H, W) or (H, W, 3) uint8; None where the samples are none.

    Raises:
        OutputError: the file cannot be written.
    """
    classes = getattr(network, "num_classes", None)
    cond = None if classes is None else {"label": np.arange(SAMPLES) % classes}
    x = sample(
        network, SAMPLES, STEPS, seed=SEED, shape=shape, schedule=schedule, prediction_type=prediction_type, clip=clip, cond=cond
    ).cpu().numpy()  # fmt: skip
    try:
        check_shape(shape)
    except ArgumentError:
        with replacing(folder / "samples" / f"step-{step:08d}.npy") as partial:
            np.save(partial, x)
        return None
    levels = grid(np.clip(np.rint((x + 1.0) * 127.5), 0, 255).astype(np.uint8))
    with replacing(folder / "samples" / f"step-{step:08d}.png") as partial:
        partial.write_bytes(png(levels))
    return levels
