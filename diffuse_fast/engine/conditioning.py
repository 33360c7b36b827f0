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
        given: A mapping from input names to values, or None. For a model an array has the declared shape of its input, for all
            samples, or one axis more, of length n or 1; classes that it knows by name may be given by name. For a bare network the
            first axis always is that one, and a number is for all samples.
        n: Number of samples.
        inputs: The model's conditioning inputs; what is left out takes their null value. None for a bare network, which takes
            what it is given.
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
            raise ArgumentTypeError(f"{argument} has the name {name!r}; the names of inputs are text.")
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
        value = _numbered(f"{argument}[{name!r}]", value, getattr(c, "class_names", None))
        array = _of_model(f"{argument}[{name!r}]", value, n, tuple(c.shape), c.dtype, device)
        inspected = c.classes is not None and isinstance(array, np.ndarray)
        if inspected and (((array < 0) | (array >= c.classes)) & (array != c.null)).any():
            null = "" if c.null is None else f" that is not {c.null}, which means no class"
            raise ArgumentError(f"{argument}[{name!r}] has a label outside 0..{c.classes - 1}{null}.")
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


def _of_bare(where: str, name: str, value: Any, n: int, device: Any) -> Any:
    array = _found(where, value, None, device)
    found = tuple(array.shape)
    if found and found[0] not in (n, 1):
        raise ArgumentError(
            f"{where} has shape {found}; the first axis is the batch, {n} long, or 1 for all samples alike. For one value of this "
            f"shape for all of them, give {name}[None]."
        )
    return _repeated(array, n, shared=not found, device=device)


def _of_model(where: str, value: Any, n: int, shape: tuple[int, ...], dtype: str, device: Any) -> Any:
    array = _found(where, value, dtype, device)
    found = tuple(array.shape)
    if found != shape and (found[1:] != shape or found[:1] not in ((n,), (1,))):
        raise ArgumentError(
            f"{where} has shape {found}; the model takes {shape} for a sample: give that, for all samples alike, or one "
            f"per sample, {(n, *shape)}."
        )
    return _repeated(array, n, shared=found == shape, device=device)


def _found(where: str, value: Any, dtype: str | None, device: Any) -> Any:
    """As an array: where it lies on the device, else on the host."""
    there = device is not None and is_on_cuda(value)
    return _taken(where, value, dtype, device) if there else _read(where, value, dtype)


def _repeated(array: Any, n: int, *, shared: bool, device: Any) -> Any:
    """With one entry for each of n samples; ``shared`` has no axis for them, and another may have one of length 1."""
    if not shared and array.shape[0] == n:
        return array
    if isinstance(array, np.ndarray):
        return np.broadcast_to(array, (n, *(array.shape if shared else array.shape[1:])))
    with device.scope():
        return device.stack([array if shared else device.part(array, 0)] * n)


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
