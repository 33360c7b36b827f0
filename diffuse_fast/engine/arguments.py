"""Argument checks that several modules of the engine share."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..kernels.device_array import DeviceArray, is_on_cuda
from ..kernels.step import INDICES_END, SEEDS_END, noise_address
from ..model import Model
from ..plans.row import MAX_ELEMENTS

_log = logging.getLogger("diffuse_fast")

Seed = int | Sequence[int] | None

# NumPy before 2.0 has 32; one is the batch's and one the registers'.
_MAX_AXES = 30


def callable_or_none(name: str, value: Any) -> None:
    """Refuse a value that is neither None nor callable, before anything runs."""
    if value is not None and not callable(value):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give a function, or leave it out.")


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor. Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def trait(name: str, given: str | None, model: Model | None, choices: tuple[str, ...]) -> str | None:
    """Return a property of the network: the model's own value, or the caller's for a bare network; None if neither has one.

    Raises:
        ArgumentError: the caller's value is not among the choices, or contradicts the model.
    """
    if given is not None and given not in choices:
        raise ArgumentError(f"{name} is {given!r}.{suggest(str(given), choices)}")
    known = None if model is None else getattr(model, name)
    if None not in (given, known) and given != known:
        raise ArgumentError(f"{name} is {given!r}, but this model says {known!r}; leave it out.")
    return given if known is None else known


# ---- seeds and shapes ---------------------------------------------------------------------------


def fresh_seed() -> int:
    """A random seed."""
    return int.from_bytes(os.urandom(8), "little")


def seeds_of(seed: Seed, n: int, first_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the seed (uint64) and the index (uint32) of each sample. A fresh seed is logged."""
    if seed is None:
        seed = fresh_seed()
        _log.info("seed: %d", seed)
    # The common case, without the checks below.
    if type(seed) is type(first_index) is int and 0 <= seed < SEEDS_END and 0 <= first_index <= INDICES_END - n:
        return np.full(n, seed, np.uint64), np.arange(first_index, first_index + n, dtype=np.uint32)
    first_index = require_int("first_index", first_index, 0)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer | Sequence | np.ndarray) or isinstance(seed, str):
        raise ArgumentTypeError(f"seed is a {type(seed).__name__}; give an integer, a list of them, or None.")
    many = not isinstance(seed, int | np.integer)
    if many and first_index:
        raise ArgumentError(f"first_index is {first_index}, but each of a list of seeds has its index 0; leave first_index out.")
    return noise_address(seed, None if many else first_index, n)


def shape_of_sample(given: Sequence[int] | None, model: Model | None) -> tuple[int, ...]:
    """Return the shape of one sample: the model's, or the caller's for a bare network.

    Raises:
        ArgumentError, ArgumentTypeError: the shape is missing, invalid, or contradicts the model.
    """
    if given is None:
        if model is None:
            raise ArgumentError("shape is not known: this model does not say it; give shape=.")
        shape = model.shape  # checked when it was loaded
    elif isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentTypeError(f"shape is {given!r}; give the dimensions of one sample, as (3, 64, 64).")
    else:
        shape = tuple(require_int("a dimension of shape", d, 1) for d in given)
    if len(shape) > _MAX_AXES:
        raise ArgumentError(f"shape has {len(shape)} dimensions; a sample has at most {_MAX_AXES}.")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ArgumentError(f"shape is {shape}: {math.prod(shape)} elements; a sample has at most 2**34.")
    if model is not None and shape != model.shape:
        raise ArgumentError(f"shape is {shape}; this model's samples have {model.shape}.")
    return shape


# ---- arrays -------------------------------------------------------------------------------------


def on_host(name: str, value: Any) -> None:
    """Refuse an array on a CUDA device that is not a tensor: only tensors can be copied from there."""
    if is_on_cuda(value) and not is_tensor(value):
        raise ArgumentError(f"{name} is a {type(value).__name__} on a CUDA device, and is read on the host here; copy it there.")


def dtype_of(array: Any) -> Any:
    """Return the dtype of an array on the host or a device, as NumPy names it, or ``"bfloat16"``, which NumPy does not have."""
    if isinstance(array, np.ndarray):
        return array.dtype
    name = array.dtype_name if isinstance(array, DeviceArray) else str(array.dtype).removeprefix("torch.")
    return name if name == "bfloat16" else np.dtype(name)


def host_array(name: str, value: Any) -> np.ndarray:
    """Return an array or a tensor as a NumPy array."""
    if is_tensor(value):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
        value = value.float().cpu().numpy()
    on_host(name, value)
    return np.asarray(value)


def noise_array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return given noise as a finite floating array of this shape."""
    array = host_array(name, value)
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be {shape}.")
    if array.dtype.kind != "f":
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; it must be floating.")
    check_finite(name, array)
    return array


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse NaN and Inf in an argument; otherwise the network would be blamed for them."""
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} has NaN or Inf in it; it must be finite.")


def device_noise(name: str, value: Any, shape: tuple[int, ...], device: Any) -> Any:
    """Return given noise as :func:`noise_array` does, except that an array on a CUDA device stays there and is not inspected.

    Args:
        device: A :class:`~diffuse_fast.engine.devices.base.Device`.
    """
    if not is_on_cuda(value):
        return noise_array(name, value, shape)
    if is_tensor(value) and value.requires_grad:
        raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
    with device.scope():
        array = device.take_noise(name, value)
    if tuple(array.shape) != shape:
        raise ArgumentError(f"{name} has shape {tuple(array.shape)}; it must be {shape}.")
    return array
