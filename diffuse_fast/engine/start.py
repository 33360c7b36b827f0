"""Where samples start that do not start from pure noise: from data that is noised to the beginning of their plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..kernels import get_kernel, kernels
from ..kernels.reference import STREAM_INITIAL
from ..plans.plan import Plan
from .arguments import noise_array


def host_kernel() -> Any:
    """The CPU's kernel, also where a device is sampled on: its noise has the same bits everywhere."""
    return get_kernel(next(k.name for k in kernels() if k.device == "cpu" and k.unavailable is None))


def check_start(plan: Plan, data: Any, noise: Any) -> None:
    """Refuses to start a plan from pure noise that begins in the middle of the schedule."""
    if plan.starts_from_data and data is None and noise is None:
        raise ArgumentError(
            f"the plan begins at time {dict(plan.options)['begin']:g}, where the state is data plus noise. Give data=, which is "
            f"noised to there, or the noised state itself as noise=."
        )


def noised(plan: Plan, data: Any, noise: Any, shape: tuple[int, ...], seeds: np.ndarray, indices: np.ndarray, of: str = "") -> Any:
    """What to give a run as its noise, so that it starts at alpha·data + sigma·noise, the first marginal of its plan.

    Args:
        data, noise: Of this shape, on the host or tensors; a noise of None is the generator's.
        seeds, indices: Of the samples.
        of: Said of the arguments in errors.

    Returns:
        float32, to be multiplied by the plan's initial_scale.
    """
    clean = noise_array(f"data{of}", data, shape)
    if noise is None:
        z = np.empty(shape, np.float32)
        host_kernel().normals(z, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=1.0)
    else:
        z = noise_array(f"noise{of}", noise, shape)
    alpha, sigma = plan.marginals[0]
    return ((alpha * clean.astype(np.float64) + sigma * z) / plan.initial_scale).astype(np.float32)
