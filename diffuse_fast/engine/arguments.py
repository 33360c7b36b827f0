"""Checks of the engine's arguments that more than one of its files makes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..kernels.cuda import DeviceArray, is_on_cuda
from ..model import Model


def whole(name: str, value: Any, least: int) -> int:
    """A whole number from ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
    if value < least:
        raise ArgumentError(f"{name} is {value}; it must be at least {least}.")
    return int(value)


def callable_or_none(name: str, value: Any) -> None:
    """Refuses what cannot be called, before anything runs."""
    if value is not None and not callable(value):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give a function, or leave it out.")


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor. Does not import torch: where it is not loaded, nothing is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def trait(name: str, given: str | None, model: Model | None, choices: tuple[str, ...]) -> str | None:
    """What a model says of its network under a name, or what a caller says of a bare one; None where neither does.

    Raises:
        ArgumentError: what is given is no choice, or not what the model says.
    """
    if given is not None and given not in choices:
        raise ArgumentError(f"{name} is {given!r}.{suggest(str(given), choices)}")
    known = None if model is None else getattr(model, name)
    if None not in (given, known) and given != known:
        raise ArgumentError(f"{name} is {given!r}, but this model says {known!r}; leave it out.")
    return given if known is None else known


def on_host(name: str, value: Any) -> None:
    """Refuses an array on a CUDA device where there is none to read it; a tensor is copied from there."""
    if is_on_cuda(value) and not is_tensor(value):
        raise ArgumentError(f"{name} is a {type(value).__name__} on a CUDA device, and is read on the host here; copy it there.")


def dtype_of(array: Any) -> Any:
    """The dtype of an array of the host or of a device, as NumPy has it; and ``"bfloat16"``, which it has not."""
    if isinstance(array, np.ndarray):
        return array.dtype
    name = array.dtype_name if isinstance(array, DeviceArray) else str(array.dtype).removeprefix("torch.")
    return name if name == "bfloat16" else np.dtype(name)


def noise_array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Given noise as a floating array of this shape."""
    if is_tensor(value):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
        value = value.float().cpu().numpy()
    on_host(name, value)
    array = np.asarray(value)
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be {shape}.")
    if array.dtype.kind != "f":
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; it must be floating.")
    if not np.isfinite(array).all():  # else the network would be blamed
        raise ArgumentError(f"{name} has NaN or Inf in it; it must be finite.")
    return array


def device_noise(name: str, value: Any, shape: tuple[int, ...], device: Any) -> Any:
    """Given noise as :func:`noise_array`; but an array of any library on a CUDA device stays where it is, and is taken by DLPack.
    Its values are not looked at.

    ``device`` is a :class:`~diffuse_fast.engine.device.Device`.
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
