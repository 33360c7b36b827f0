"""The arrays that :func:`~.step.step` and :func:`~.forward.forward` accept: NumPy arrays and CPU tensors (:class:`HostArrays`), and
tensors on a CUDA device (:class:`DeviceArrays`). Arrays are checked and never copied."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, UnavailableError
from .cpu import address_of, dtype_name
from .overlap import Memory

FLOATS = ("float32", "float16", "bfloat16")
SINGLE = ("float32",)


class Arrays(Protocol):
    """One kind of array.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``: the device of the kernels that take these arrays.
    """

    device: str

    def check(self, value: Any, name: str, *, dtypes: tuple[str, ...] = FLOATS, shape: Any = None) -> Any:
        """The array as the kernels take it: the same memory.

        Args:
            name: The argument's name, for messages.
            dtypes: The dtypes that are allowed.
            shape: The shape that it must have, which is that of the first argument. None: any.

        Raises:
            ArgumentError, ArgumentTypeError: it is of another kind, dtype or shape, on another device, or not contiguous.
        """
        ...

    def target(self, value: Any, name: str, like: Any, checked: Any) -> tuple[Any, Any]:
        """An array to write to, as the kernels take it and as it is returned. ``value`` None: a new one like ``like``.

        Args:
            like: The argument whose kind, dtype and shape the target must have.
            checked: What :meth:`check` returned for it.
        """
        ...

    def dtype(self, array: Any) -> str:
        """The dtype of a checked array: one of ``FLOATS``."""
        ...

    def stack(self, first: Any, second: Any) -> Any:
        """Per sample the elements of ``first``, then those of ``second``: (batch, 2, elements)."""
        ...

    def memory(self, name: str, array: Any) -> Memory:
        """The address and size of a checked array."""
        ...

    def is_writeable(self, array: Any) -> bool:
        """Whether a checked array can be written to."""
        ...

    def is_finite(self, array: Any) -> bool:
        """Whether a checked array has no NaN or Inf."""
        ...


def arrays_for(first: Any, name: str) -> Arrays:
    """The kind of array that ``first``, an argument of that name, is. Every other argument must be of the same kind."""
    return DeviceArrays(first, name) if getattr(first, "is_cuda", False) else HostArrays(name)


class HostArrays:
    """NumPy arrays and CPU tensors, which may be mixed. The kernels take NumPy arrays, and bfloat16 as its bits, uint16."""

    device = "cpu"

    def __init__(self, first: str):
        self._first = first

    def check(self, value: Any, name: str, *, dtypes: tuple[str, ...] = FLOATS, shape: Any = None) -> np.ndarray:
        array = _as_array(value, name)
        if dtype_name(array) not in dtypes:
            raise ArgumentTypeError(f"{name} has dtype {value.dtype}; it must be {_either(dtypes)}.")
        if shape is not None and array.shape != shape:
            raise ArgumentError(f"{name} has shape {array.shape}; it must have {self._first}'s shape {shape}.")
        if not array.flags.c_contiguous:
            raise ArgumentError(f"{name} is not contiguous; pass np.ascontiguousarray({name}) (or {name}.contiguous()).")
        if not array.flags.aligned:
            raise ArgumentError(f"{name} is not aligned to the size of its elements; pass {name}.copy().")
        return array

    def target(self, value: Any, name: str, like: Any, checked: Any) -> tuple[np.ndarray, Any]:
        if value is None:
            result = np.empty_like(like) if isinstance(like, np.ndarray) else like.new_empty(like.shape)
            return _as_array(result, name), result
        target = self.check(value, name, dtypes=(self.dtype(checked),), shape=checked.shape)
        if not target.flags.writeable:
            raise ArgumentError(f"{name} is read-only.")
        return target, value

    def dtype(self, array: np.ndarray) -> str:
        return dtype_name(array)

    def stack(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.stack([first.reshape(len(first), -1), second.reshape(len(second), -1)], axis=1)

    def memory(self, name: str, array: np.ndarray) -> Memory:
        return Memory(name, address_of(array), array.nbytes, array.itemsize)

    def is_writeable(self, array: np.ndarray) -> bool:
        return array.flags.writeable

    def is_finite(self, array: np.ndarray) -> bool:
        return bool(np.isfinite(array).all())


class DeviceArrays:
    """Tensors on one CUDA device."""

    device = "cuda"

    def __init__(self, first: Any, name: str):
        self._first, self._on = name, first.device

    def check(self, value: Any, name: str, *, dtypes: tuple[str, ...] = FLOATS, shape: Any = None) -> Any:
        import torch

        if not isinstance(value, torch.Tensor):
            raise ArgumentTypeError(f"{name} is a {type(value).__name__}; {self._first} is on {self._on}: give a tensor there.")
        if value.device != self._on:
            raise ArgumentError(f"{name} is on {value.device} and {self._first} on {self._on}; give all tensors on one device.")
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach(): kernels are not differentiable.")
        if self.dtype(value) not in dtypes:
            raise ArgumentTypeError(f"{name} has dtype {value.dtype}; it must be {_either(dtypes)}.")
        if shape is not None and value.shape != shape:
            raise ArgumentError(f"{name} has shape {tuple(value.shape)}; it must have {self._first}'s shape {tuple(shape)}.")
        if not value.is_contiguous():
            raise ArgumentError(f"{name} is not contiguous; pass {name}.contiguous().")
        return value

    def target(self, value: Any, name: str, like: Any, checked: Any) -> tuple[Any, Any]:
        import torch

        if value is None:
            value = torch.empty_like(checked)
        target = self.check(value, name, dtypes=(self.dtype(checked),), shape=checked.shape)
        return target, target

    def dtype(self, array: Any) -> str:
        return str(array.dtype).removeprefix("torch.")

    def stack(self, first: Any, second: Any) -> Any:
        import torch

        return torch.stack([first.reshape(len(first), -1), second.reshape(len(second), -1)], dim=1)

    def memory(self, name: str, array: Any) -> Memory:
        return Memory(name, array.data_ptr(), array.numel() * array.element_size(), array.element_size())

    def is_writeable(self, array: Any) -> bool:
        return True

    def is_finite(self, array: Any) -> bool:
        return bool(array.isfinite().all())


def _as_array(value: Any, name: str) -> np.ndarray:
    """A NumPy array, or a view of a CPU tensor; bfloat16 as its bits."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach(): kernels are not differentiable.")
        if value.device.type != "cpu":
            raise UnavailableError(f"{name} is on {value.device}; give all tensors on one device, the CPU or a CUDA device.")
        try:
            return (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
        except (RuntimeError, TypeError, ValueError) as error:
            raise ArgumentTypeError(f"{name} is a tensor that NumPy cannot read: {error}") from None
    if not isinstance(value, np.ndarray):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give a NumPy array or a CPU tensor.")
    if value.dtype == np.uint16:  # only bfloat16 tensors become uint16
        raise ArgumentTypeError(f"{name} has dtype uint16; it must be {_either(FLOATS)}.")
    return value


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
