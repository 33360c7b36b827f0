"""Conditioning inputs: what the caller gives, checked, as one array per input with a value for every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, near
from ..kernels.cuda import is_on_cuda
from .arguments import dtype_of, is_tensor, on_host

# Arrays of the host, or of the device that is sampled on.
Conditions = dict[str, Any]


def conditions(argument: str, given: Any, n: int, inputs: Any, device: Any = None) -> Conditions:
    """The conditioning of n samples by input name, each (n, *its shape).

    Args:
        argument: The name of the argument, for messages.
        given: A mapping from input names to values, one for all samples or one per sample; or None. Classes that the model
            knows by name may be given by name.
        n: Number of samples.
        inputs: The model's conditioning inputs; what is left out takes their null value. None for a bare network, which takes
            what it is given.
        device: The :class:`~diffuse_fast.engine.device.Device` that is sampled on: what lies there stays there, is taken by DLPack,
            and its values are not looked at. None: the CPU.

    Raises:
        ArgumentError, ArgumentTypeError: a name is unknown or missing, or a value does not fit its input.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentTypeError(f"{argument} is a {type(given).__name__}; give a dict from input names to values.")
    values = dict(given or {})
    for name in values:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"{argument} has the name {name!r}; the names of inputs are text.")
    if inputs is None:
        return {name: _per_sample(f"{argument}[{name!r}]", v, n, None, None, device) for name, v in values.items()}
    known = {c.name: c for c in inputs}
    for name in values:
        if name not in known:
            raise ArgumentError(f"{argument} has {name!r}; the model's conditioning inputs: {', '.join(known) or 'none'}.")
    out = {}
    for name, c in known.items():
        value = values.get(name, c.null)
        if value is None:
            raise ArgumentError(f"{argument} lacks {name!r}, and the model has no null value for it.")
        value = _numbered(f"{argument}[{name!r}]", value, getattr(c, "class_names", None))
        array = _per_sample(f"{argument}[{name!r}]", value, n, tuple(c.shape), c.dtype, device)
        looked_at = c.classes is not None and name in values and isinstance(array, np.ndarray)
        if looked_at and ((array < 0) | (array > max(c.classes - 1, c.null or 0))).any():
            raise ArgumentError(f"{argument}[{name!r}] has a label outside 0..{c.classes - 1}.")
        out[name] = array
    return out


def check_form(condition: Conditions, whose: str, first: Conditions, of: str) -> None:
    """Whether two conditionings of the same number of samples have the same names, shapes and dtypes."""
    if (form := _form(condition)) != (wanted := _form(first)):
        raise ArgumentError(f"{whose} has the conditioning {form}, but {of} has {wanted}; they must be of one form.")


def _form(condition: Conditions) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(value.shape), str(dtype_of(value))) for name, value in sorted(condition.items())}


def _numbered(name: str, value: Any, class_names: Sequence[str] | None) -> Any:
    """A class's name, or a list of names and numbers, as numbers; anything else as it is."""
    if class_names is None or not isinstance(value, str | list | tuple):
        return value
    if not isinstance(value, str):
        return [_numbered(name, one, class_names) for one in value]
    if value not in class_names:
        raise ArgumentError(f"{name} is {value!r}, which is no class of the model.{near(value, class_names)}")
    return class_names.index(value)


def _per_sample(name: str, value: Any, n: int, shape: tuple[int, ...] | None, dtype: str | None, device: Any) -> Any:
    there = device is not None and is_on_cuda(value)
    array = _taken(name, value, dtype, device) if there else _read(name, value, dtype)
    alike = tuple(array.shape) == (() if shape is None else shape)
    if alike and there:
        with device.scope():
            array = device.stack([array] * n)
    elif alike:
        array = np.broadcast_to(array, (n, *array.shape))
    found = tuple(array.shape)
    if found[:1] != (n,) or (shape is not None and found[1:] != shape):
        raise ArgumentError(f"{name} has shape {found}; give one value for all, or one per sample ({n}).")
    return array


def _taken(name: str, value: Any, dtype: str | None, device: Any) -> Any:
    """Where it lies on the device."""
    with device.scope():
        array = device.take(name, value.detach() if is_tensor(value) else value)
    if dtype is not None and dtype_of(array) != np.dtype(dtype):
        raise ArgumentTypeError(f"{name} is {dtype_of(array)} on the device; the model takes {dtype}: convert it there.")
    return array


def _read(name: str, value: Any, dtype: str | None) -> np.ndarray:
    """On the host."""
    on_host(name, value)
    if is_tensor(value):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has no bfloat16
    try:
        array = np.asarray(value)
    except ValueError:
        raise ArgumentTypeError(f"{name} is a list of parts that differ in shape; give an array.") from None
    if array.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"{name} is {value!r}; it must be numbers.")
    if dtype is not None:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ArgumentTypeError(f"{name} has dtype {array.dtype}; the model takes {dtype}.")
        array = array.astype(dtype)
    return array
