"""Checks of the engine's arguments that more than one of its files makes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError


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


def noise_array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Given noise as a floating array of this shape."""
    if is_tensor(value):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
        value = value.float().cpu().numpy()
    array = np.asarray(value)
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be {shape}.")
    if array.dtype.kind != "f":
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; it must be floating.")
    return array


def device_noise(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Given noise as :func:`noise_array`, but a CUDA tensor stays where it is."""
    if not is_tensor(value) or not value.is_cuda:
        return noise_array(name, value, shape)
    if value.requires_grad:
        raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
    if tuple(value.shape) != shape:
        raise ArgumentError(f"{name} has shape {tuple(value.shape)}; it must be {shape}.")
    if not value.is_floating_point():
        raise ArgumentTypeError(f"{name} has dtype {value.dtype}; it must be floating.")
    return value
