"""Conditioning inputs: check the caller's values, and make one array per input with an entry for every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..kernels.device_array import is_on_cuda
from .arguments import dtype_of, is_tensor, on_host

# Arrays by input name, on the host or on the device that is sampled on.
Conditions = dict[str, Any]


def conditions(argument: str, given: Any, n: int, inputs: Any, device: Any = None) -> Conditions:
    """Return the conditioning of n samples by input name, each of shape (n, *shape of the input).

    Args:
        argument: Name of the argument, for messages.
        given: A mapping from input names to values, or None. For a model, an array has the declared shape of its input, for all
            samples, or one axis more, of length n or 1; a class may be given by its name. For a bare network, the first axis is
            always the batch, of length n or 1, and a number is for all samples.
        n: Number of samples.
        inputs: The model's conditioning inputs; an input that is not given gets its null value. None for a bare network, which
            takes any.
        device: The :class:`~diffuse_fast.engine.devices.base.Device` that is sampled on; None is the CPU. Arrays on it stay there,
            are read by DLPack, and their values are not inspected.

    Raises:
        ArgumentError, ArgumentTypeError: a name is unknown or missing, or a value does not fit its input.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentTypeError(f"{argument} is a {type(given).__name__}; give a dict from input names to values.")
    values = dict(given or {})
    for name in values:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"{argument} has the name {name!r}; the names of inputs are strings.")
    if inputs is None:
        return {name: _of_bare(f"{argument}[{name!r}]", name, v, n, device) for name, v in values.items()}
    known = {c.name: c for c in inputs}
    for name in values:
        if name not in known:
            raise ArgumentError(f"{argument} has {name!r}; the model's conditioning inputs: {', '.join(known) or 'none'}.")
    out = {}
    for name, c in known.items():
        if name not in values and c.null is not None:
            out[name] = np.full((n, *c.shape), c.null, c.dtype)
            continue
        value = values.get(name)
        if value is None:
            raise ArgumentError(f"{argument} lacks {name!r}, and the model has no null value for it.")
        value = _class_numbers(f"{argument}[{name!r}]", value, getattr(c, "class_names", None))
        array = _of_model(f"{argument}[{name!r}]", value, n, tuple(c.shape), c.dtype, device)
        inspected = c.classes is not None and isinstance(array, np.ndarray)
        if inspected and (((array < 0) | (array >= c.classes)) & (array != c.null)).any():
            null = "" if c.null is None else f" that is not {c.null}, which means no class"
            raise ArgumentError(f"{argument}[{name!r}] has a label outside 0..{c.classes - 1}{null}.")
        out[name] = array
    return out


def check_form(condition: Conditions, whose: str, first: Conditions, of: str) -> None:
    """Check that two conditionings of the same number of samples have the same names, shapes and dtypes."""
    if (form := _form(condition)) != (wanted := _form(first)):
        raise ArgumentError(f"{whose} has the conditioning {form}, but {of} has {wanted}; they must be of one form.")


def _form(condition: Conditions) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(value.shape), str(dtype_of(value))) for name, value in sorted(condition.items())}


def _class_numbers(name: str, value: Any, class_names: Sequence[str] | None) -> Any:
    """Replace class names by class numbers; return anything else unchanged."""
    if class_names is None or not isinstance(value, str | list | tuple):
        return value
    if not isinstance(value, str):
        return [_class_numbers(name, one, class_names) for one in value]
    if value not in class_names:
        raise ArgumentError(f"{name} is {value!r}, which is not a class of the model.{suggest(value, class_names)}")
    return class_names.index(value)


def _of_bare(where: str, name: str, value: Any, n: int, device: Any) -> Any:
    array = _as_array(where, value, None, device)
    found = tuple(array.shape)
    if found and found[0] not in (n, 1):
        raise ArgumentError(
            f"{where} has shape {found}; the first axis is the batch, {n} long, or 1 for all samples alike. For one value of this "
            f"shape for all of them, give {name}[None]."
        )
    return _repeat(array, n, shared=not found, device=device)


def _of_model(where: str, value: Any, n: int, shape: tuple[int, ...], dtype: str, device: Any) -> Any:
    array = _as_array(where, value, dtype, device)
    found = tuple(array.shape)
    if found != shape and (found[1:] != shape or found[:1] not in ((n,), (1,))):
        raise ArgumentError(
            f"{where} has shape {found}; the model takes {shape} for a sample: give that, for all samples alike, or one "
            f"per sample, {(n, *shape)}."
        )
    return _repeat(array, n, shared=found == shape, device=device)


def _as_array(where: str, value: Any, dtype: str | None, device: Any) -> Any:
    """Return a value as an array, on the device if it is there, on the host otherwise."""
    on_device = device is not None and is_on_cuda(value)
    return _device_array(where, value, dtype, device) if on_device else _host_array(where, value, dtype)


def _repeat(array: Any, n: int, *, shared: bool, device: Any) -> Any:
    """Repeat an array for n samples: it has no batch axis if ``shared``; otherwise one of length n or 1."""
    if not shared and array.shape[0] == n:
        return array
    if isinstance(array, np.ndarray):
        return np.broadcast_to(array, (n, *(array.shape if shared else array.shape[1:])))
    with device.scope():
        return device.stack([array if shared else device.part(array, 0)] * n)


def _device_array(name: str, value: Any, dtype: str | None, device: Any) -> Any:
    """Return an array on the device, without a copy."""
    with device.scope():
        array = device.take(name, value.detach() if is_tensor(value) else value)
    if dtype is not None and dtype_of(array) != np.dtype(dtype):
        raise ArgumentTypeError(f"{name} is {dtype_of(array)} on the device; the model takes {dtype}: convert it there.")
    return array


def _host_array(name: str, value: Any, dtype: str | None) -> np.ndarray:
    """Return a value as a NumPy array."""
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
