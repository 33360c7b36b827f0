"""Time grids: at which timesteps the network is called.

Integer timesteps in falling order, by the names of Lin et al. 2023 ("Common Diffusion Noise Schedules and Sample
Steps are Flawed", Table 2; 0-based here), for T training timesteps and N steps:

=========  =========================================================  =======================
name       timesteps                                                  T = 1000, N = 4
=========  =========================================================  =======================
leading    ``i·⌊T/N⌋ + steps_offset``, i = N − 1 .. 0                 750, 500, 250, 0
trailing   ``round(T − i·T/N) − 1``, i = 0 .. N − 1                   999, 749, 499, 249
linspace   ``round(i·(T − 1)/(N − 1))``, i = N − 1 .. 0               999, 666, 333, 0
=========  =========================================================  =======================

Halves are rounded to even, as NumPy and diffusers do. With one step, leading and linspace have the cleanest timestep
only: for few steps take trailing.
"""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError


def leading(num_train_timesteps: int, steps: int) -> np.ndarray:
    return np.arange(steps)[::-1] * (num_train_timesteps // steps)


def trailing(num_train_timesteps: int, steps: int) -> np.ndarray:
    return np.round(num_train_timesteps - np.arange(steps) * (num_train_timesteps / steps)) - 1


def linspace(num_train_timesteps: int, steps: int) -> np.ndarray:
    return np.round(np.linspace(0, num_train_timesteps - 1, steps))[::-1]


SPACINGS = {"leading": leading, "trailing": trailing, "linspace": linspace}


def grid(spacing: str, num_train_timesteps: int, steps: int, steps_offset: int) -> np.ndarray:
    """The timesteps of a named spacing, float64 ``(steps,)``, falling.

    Raises:
        ArgumentError: ``steps_offset`` is given to a spacing that has none, or shifts the grid past the last timestep.
    """
    if steps_offset != 0 and spacing != "leading":
        raise ArgumentError(f"steps_offset is {steps_offset}; only leading spacing has an offset, not {spacing}.")
    timesteps = SPACINGS[spacing](num_train_timesteps, steps) + steps_offset
    if timesteps[0] >= num_train_timesteps:
        raise ArgumentError(
            f"steps_offset is {steps_offset}; with {steps} steps the first timestep would be {timesteps[0]}, past the "
            f"last of the schedule ({num_train_timesteps - 1}). Take fewer steps or a smaller offset."
        )
    return timesteps.astype(np.float64)
