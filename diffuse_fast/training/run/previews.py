"""Sample grids during training, always from the same noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ...engine.sample import sample
from ...errors import ArgumentError
from ...files import replacing
from ...image_grid import check_shape, grid, png
from ...schedule.discrete import DiscreteSchedule
from .description import OutputSpec

SAMPLES, STEPS, SEED = 16, 20, 0


class _Half(nn.Module):
    """A network without its learned variance; previews use the schedule's."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        half: Tensor = self.network(x, t, **cond).chunk(2, dim=1)[0]
        return half


def preview(
    network: nn.Module, folder: Path, step: int, *, shape: tuple[int, ...], spec: OutputSpec, clip: tuple[float, float] | None
) -> np.ndarray | None:
    """Draw 16 samples in at most 20 steps and write them to ``folder/samples``: images as a PNG, others as ``.npy``.

    A class-conditional network draws its classes in turn.

    Returns:
        The grid of images, (H, W) or (H, W, 3) uint8; None if the samples are not images.

    Raises:
        OutputError: the file cannot be written.
    """
    classes = getattr(network, "num_classes", None)
    cond = None if classes is None else {"label": np.arange(SAMPLES) % classes}
    schedule = spec.schedule
    steps = min(STEPS, schedule.num_train_timesteps) if isinstance(schedule, DiscreteSchedule) else STEPS
    drawn = sample(
        network if spec.variance == "none" else _Half(network),
        SAMPLES,
        steps,
        seed=SEED,
        shape=shape,
        schedule=schedule,
        prediction_type=spec.prediction_type,
        time_convention=spec.convention,
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
