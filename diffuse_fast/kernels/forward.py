"""The forward process, bare: noised data and the training target in one pass (``csrc/step/forward.h``)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, UnavailableError
from .overlap import Memory, check_apart
from .registry import get_kernel
from .step import MAX_ELEMENTS, _as_array, _fitting, _memory, _target, noise_address, whole


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
    """Noise clean data: ``x_t = alpha·x0 + sigma·z`` and ``target = a·x0 + b·z``, the noise made in the kernel.

    The marginal q(x_t | x_0) of DDPM (Ho et al. 2020, equation 4), and what a network learns to predict from it.

    Args:
        x0: Clean data (batch, ...): a float32 NumPy array, CPU tensor or CUDA tensor, contiguous.
        alpha, sigma: The marginal's coefficients, one per sample (or one for all).
        target: (a, b), one per sample or one for all: epsilon (0, 1), sample (1, 0), v_prediction (-sigma, alpha), flow (-1, 1).
            None: no target is made.
        seed: Seed of the generator, 0 <= seed < 2**64.
        step: Number of the training step: the second counter word of the noise, 0 <= step < 2**32.
        index: Sample indices of the noise; a whole number is the first of consecutive ones. A process that holds a shard of a
            global batch gives its place, and the batch sees the same noise however it is split.
        noise: N(0, 1) of x0's shape, in place of the generator. Its values are looked at: NaN and Inf are refused.
        out: Where to write x_t and the target (None without one), of x0's kind and shape: a training loop that gives the same
            memory every step saves the system's zeroing of it. Each may be x0 or the noise, exactly, or is apart from both.
        kernel: A kernel by name; default: the best of this machine.

    Returns:
        x_t and the target (None without one): ``out``, or new ones of x0's kind.

    Raises:
        ArgumentError, ArgumentTypeError: shapes, dtypes or values that do not fit; arrays are never copied silently.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.kernels import forward
        >>> x0 = np.ones((2, 3), np.float32)
        >>> x_t, target = forward(x0, [0.8, 0.6], [0.6, 0.8], target=(0.0, 1.0), seed=1)
        >>> bool(np.allclose(x_t[0], 0.8 + 0.6 * target[0]))
        True
    """
    away = _away(x0)
    clean = x0 if away else _as_array(x0, "x0")
    if clean.ndim < 1 or math.prod(clean.shape) == 0:
        raise ArgumentError(f"x0 has shape {tuple(clean.shape)}; it needs a batch axis and at least one element.")
    if (str(clean.dtype) != "torch.float32") if away else (clean.dtype != np.float32):
        raise ArgumentTypeError(f"x0 has dtype {clean.dtype}; it must be float32.")
    batch = len(clean)
    if math.prod(clean.shape[1:]) > MAX_ELEMENTS:
        raise ArgumentError(f"x0 has {math.prod(clean.shape[1:])} elements per sample; a sample has at most 2**34.")
    step, seed = whole("step", step, 1 << 32), whole("seed", seed, 1 << 64)
    if target is not None:
        target = _pair("target", target, "(a, b): the target's coefficients of x0 and of the noise")
    if away:
        _on_device(x0, "x0", x0)
    given = None if noise is None else _on_device(noise, "noise", x0) if away else _fitting(noise, "noise", clean.shape, np.float32)
    if given is not None and not _all_finite(given, away):
        raise ArgumentError("noise has NaN or Inf in it; it must be finite.")
    coefficients = np.zeros((4, batch), np.float32)
    named = [("alpha", alpha), ("sigma", sigma), *(() if target is None else zip(("target[0]", "target[1]"), target, strict=True))]
    for line, (name, value) in zip(coefficients, named, strict=False):
        line[:] = _per_sample(name, value, batch)
    seeds, indices = noise_address(seed, index, batch)
    place, aim_place = (None, None) if out is None else _pair("out", out, "where x_t goes, and where the target goes")
    if out is not None and (aim_place is None) != (target is None):
        raise ArgumentError("out must be a pair: where x_t goes, and where the target goes (None where none is made).")
    x_t, result = _place(x0, clean, place, away)
    aim, wanted = (None, None) if target is None else _place(x0, clean, aim_place, away)
    memory = _device_memory if away else _memory
    check_apart(
        [memory(name, a) for name, a in (("out[0]", x_t), ("out[1]", aim)) if a is not None],
        [memory(name, a) for name, a in (("x0", clean), ("noise", given)) if a is not None],
    )
    chosen = get_kernel(kernel, device="cuda" if away else "cpu")
    if not hasattr(chosen, "forward"):
        raise UnavailableError(f"kernel {chosen.name!r} has no forward process; on a CUDA device triton has one.")
    chosen.forward(clean, x_t, aim, coefficients=coefficients, indices=indices, seed=int(seeds[0]), row=step, noise=given)
    return result, wanted


def _away(value: Any) -> bool:
    """Whether it is a tensor on a CUDA device."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.is_cuda


def _place(x0: Any, clean: Any, given: Any, away: bool) -> tuple[Any, Any]:
    """Where a result is written, as the kernel takes it and as it is returned."""
    if not away:
        return _target(x0, clean, given)
    import torch

    tensor = torch.empty_like(x0) if given is None else _on_device(given, "out", x0)
    return tensor, tensor


def _all_finite(values: Any, away: bool) -> bool:
    return bool(values.isfinite().all()) if away else bool(np.isfinite(values).all())


def _pair(name: str, value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; {name} must be a pair, {what}.")
    return value[0], value[1]


def _device_memory(name: str, tensor: Any) -> Memory:
    return Memory(name, tensor.data_ptr(), tensor.numel() * tensor.element_size(), tensor.element_size())


def _on_device(value: Any, name: str, x0: Any) -> Any:
    """A tensor beside x0, and like it."""
    import torch

    if not isinstance(value, torch.Tensor) or value.device != x0.device:
        raise ArgumentTypeError(f"{name} is not a tensor on {x0.device}, as x0 is; give it there.")
    if value.requires_grad:
        raise ArgumentError(f"{name} requires grad; pass {name}.detach(): the forward process is not differentiable.")
    if value.shape != x0.shape or value.dtype != x0.dtype or not value.is_contiguous():
        raise ArgumentError(f"{name} must be {x0.dtype}, contiguous, of x0's shape {tuple(x0.shape)}.")
    return value


def _per_sample(name: str, value: Any, batch: int) -> np.ndarray:
    try:
        array = np.asarray(value.cpu() if _away(value) else value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give one number, or one per sample ({batch}).") from None
    if array.shape not in ((), (batch,)) or not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ArgumentError(f"{name} has shape {array.shape}; it must be one finite float32, or one per sample ({batch}).")
    return array
