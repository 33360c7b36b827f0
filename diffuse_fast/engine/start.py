"""The start of samples that do not start from pure noise: data that is noised to the beginning of their plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..kernels import get_kernel, kernels
from ..kernels.reference import STREAM_INITIAL
from ..plans.plan import Plan
from .arguments import device_noise, noise_array


def host_kernel() -> Any:
    """Return the best CPU kernel, also when sampling on a device: every kernel draws the same bits."""
    return get_kernel(next(k.name for k in kernels() if k.device == "cpu" and k.unavailable is None))


def start_of(
    plan: Plan, data: Any, noise: Any, shape: tuple[int, ...], seeds: np.ndarray, indices: np.ndarray, device: Any, of: str = ""
) -> Any:
    """Return what samples start from before the plan's initial_scale; None is the generator's noise.

    Args:
        plan: Their plan.
        data, noise: Of this shape, or None. Noise may be on the device.
        shape: Shape of both: of ``len(seeds)`` samples, or of one without a batch axis.
        seeds, indices: The keys of the samples' noise.
        device: The CUDA device that is sampled on; None is the CPU.
        of: What messages append to the arguments' names.

    Raises:
        ArgumentError, ArgumentTypeError: an array does not fit, or the plan begins in the middle of the schedule and has no data.
    """
    if data is not None:
        return noised(plan, data, noise, shape, seeds, indices, of)
    if noise is None:
        if plan.starts_from_data:
            raise ArgumentError(
                f"the plan begins at time {dict(plan.options)['begin']:g}, where the state is data plus noise. Give data=, which "
                f"is noised to there, or the noised state itself as noise=."
            )
        return None
    return noise_array(f"noise{of}", noise, shape) if device is None else device_noise(f"noise{of}", noise, shape, device)


def noised(plan: Plan, data: Any, noise: Any, shape: tuple[int, ...], seeds: np.ndarray, indices: np.ndarray, of: str = "") -> Any:
    """Return the noise that makes a run start at alpha·data + sigma·noise, the first marginal of its plan.

    Arguments are those of :func:`start_of`; noise is read on the host.

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
