"""The forward process: noised data and the training target, in one pass (``csrc/step/forward.h``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError, UnavailableError
from ..plans.row import MAX_ELEMENTS
from .arrays import SINGLE, arrays_for
from .overlap import check_no_overlap
from .registry import get_kernel
from .step import noise_address


def forward(
    x0: Any,
    alpha: Any,
    sigma: Any,
    *,
    target: tuple[Any, Any] | None = None,
    seed: int = 0,
    step: int = 0,
    index: int | Sequence[int] = 0,
    noise: Any = None,
    out: tuple[Any, Any] | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]:
    """Add noise to clean data: ``x_t = alpha·x0 + sigma·z`` and ``target = a·x0 + b·z``, with the noise drawn in the kernel.

    x_t is a sample of the marginal q(x_t | x_0) of DDPM (Ho et al. 2020, equation 4); a network learns to predict the target.

    Args:
        x0: Clean data (batch, ...): a float32 NumPy array, CPU tensor or CUDA tensor, contiguous.
        alpha, sigma: The marginal's coefficients, one per sample (or one for all).
        target: (a, b), one per sample or one for all: epsilon (0, 1), sample (1, 0), v_prediction (-sigma, alpha), flow (-1, 1).
            None: no target.
        seed: Seed of the generator, 0 <= seed < 2**64.
        step: Number of the training step: the second counter word of the noise, 0 <= step < 2**32.
        index: Sample indices of the noise; an integer is the first of consecutive ones. A process with a shard of a global batch
            gives its offset, and the batch gets the same noise however it is split.
        noise: N(0, 1) of x0's shape, in place of the generator. NaN and Inf are an error.
        out: Where to write x_t and the target (None without one), of x0's kind and shape. A training loop that reuses memory saves
            the time that the system takes to zero new pages. Each may be x0 or the noise itself; it must not overlap them
            otherwise.
        kernel: Name of a kernel. Default: the best one for x0's device.

    Returns:
        x_t and the target (None without one): ``out``, or new arrays of x0's kind.

    Raises:
        ArgumentError, ArgumentTypeError: a shape, dtype or value does not fit; arrays are never copied silently.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.kernels import forward
        >>> x0 = np.ones((2, 3), np.float32)
        >>> x_t, target = forward(x0, [0.8, 0.6], [0.6, 0.8], target=(0.0, 1.0), seed=1)
        >>> bool(np.allclose(x_t[0], 0.8 + 0.6 * target[0]))
        True
    """
    arrays = arrays_for(x0, "x0")
    clean = arrays.check(x0, "x0", dtypes=SINGLE)
    if clean.ndim < 1 or 0 in clean.shape:
        raise ArgumentError(f"x0 has shape {tuple(clean.shape)}; it needs a batch axis and at least one element.")
    batch, elements = len(clean), math.prod(clean.shape[1:])
    if elements > MAX_ELEMENTS:
        raise ArgumentError(f"x0 has {elements} elements per sample; a sample has at most 2**34.")
    step, seed = require_int("step", step, 0, bits=32), require_int("seed", seed, 0, bits=64)
    if target is not None:
        target = _pair("target", target, "(a, b): the target's coefficients of x0 and of the noise")
    given = None if noise is None else arrays.check(noise, "noise", dtypes=SINGLE, shape=clean.shape)
    if given is not None and not arrays.is_finite(given):
        raise ArgumentError("noise has NaN or Inf in it; it must be finite.")
    coefficients = np.zeros((4, batch), np.float32)
    named = [("alpha", alpha), ("sigma", sigma), *(() if target is None else zip(("target[0]", "target[1]"), target, strict=True))]
    for line, (name, value) in zip(coefficients, named, strict=False):
        line[:] = _per_sample(name, value, batch)
    seeds, indices = noise_address(seed, index, batch)
    x_t_out, target_out = (None, None) if out is None else _pair("out", out, "the arrays for x_t and the target")
    if out is not None and (target_out is None) != (target is None):
        raise ArgumentError("out must be a pair: the arrays for x_t and for the target (None if there is no target).")
    x_t, x_t_result = arrays.target(x_t_out, "out", x0, clean)
    goal, goal_result = (None, None) if target is None else arrays.target(target_out, "out", x0, clean)
    check_no_overlap(
        [arrays.memory(name, a) for name, a in (("out[0]", x_t), ("out[1]", goal)) if a is not None],
        [arrays.memory(name, a) for name, a in (("x0", clean), ("noise", given)) if a is not None],
    )
    chosen: Any = get_kernel(kernel, device=arrays.device)
    if not hasattr(chosen, "forward"):
        raise UnavailableError(f"kernel {chosen.name!r} has no forward process; on a CUDA device triton has one.")
    chosen.forward(clean, x_t, goal, coefficients=coefficients, indices=indices, seed=int(seeds[0]), row=step, noise=given)
    return x_t_result, goal_result


def _pair(name: str, value: Any, content: str) -> tuple[Any, Any]:
    """The two items of a pair, checked."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; {name} must be a pair, {content}.")
    return value[0], value[1]


def _per_sample(name: str, value: Any, batch: int) -> np.ndarray:
    """The coefficient as float64, of shape () or (batch,), checked."""
    try:
        array = np.asarray(value.cpu() if getattr(value, "is_cuda", False) else value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give one number, or one per sample ({batch}).") from None
    if array.shape not in ((), (batch,)) or not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ArgumentError(f"{name} has shape {array.shape}; it must be one finite float32, or one per sample ({batch}).")
    return array
