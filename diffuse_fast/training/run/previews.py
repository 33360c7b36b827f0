"""Samples of the network as it is now, from the same noise every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ...engine import sample
from ...errors import ArgumentError
from ...files import replacing
from ...image_grid import check_shape, grid, png
from ...schedule.discrete import DiscreteSchedule
from .description import Meaning

SAMPLES, STEPS, SEED = 16, 20, 0


class _Half(nn.Module):
    """A network without the variance that it has learned: what is drawn here takes the schedule's."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        half: Tensor = self.network(x, t, **cond).chunk(2, dim=1)[0]
        return half


def preview(
    network: nn.Module, folder: Path, step: int, *, shape: tuple[int, ...], read: Meaning, clip: tuple[float, float] | None
) -> np.ndarray | None:
    """Draw 16 samples in 20 steps, or in as many as the schedule has, and write them into ``folder/samples``: pictures as a PNG,
    others as ``.npy``.

    A network with classes draws them in turn.

    Returns:
        The grid of pictures, (H, W) or (H, W, 3) uint8; None where the samples are none.

    Raises:
        OutputError: the file cannot be written.
    """
    classes = getattr(network, "num_classes", None)
    cond = None if classes is None else {"label": np.arange(SAMPLES) % classes}
    schedule = read.schedule
    steps = min(STEPS, schedule.num_train_timesteps) if isinstance(schedule, DiscreteSchedule) else STEPS
    drawn = sample(
        network if read.variance == "none" else _Half(network),
        SAMPLES,
        steps,
        seed=SEED,
        shape=shape,
        schedule=schedule,
        prediction_type=read.prediction_type,
        time_convention=read.convention,
        clip=clip,
        cond=cond,
    )
    x = drawn.cpu().numpy()
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
