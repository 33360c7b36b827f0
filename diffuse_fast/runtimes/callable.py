"""Any function ``f(x, t, **cond)`` on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, NetworkError
from .base import aligned, check_output, copied_cond, is_integer, network_error, require_integer_times


def network(
    model: Callable[..., Any], *, threads: int | None = None, time_dtype: str | None = None, precision: str = "float32"
) -> CallableNetwork:
    """Make a network from a function.

    It receives ``x`` (batch, *shape) float32, ``t`` (batch,) and the conditioning, and may modify them. It returns an array, a
    torch tensor, or an object with one of them as ``.sample``. The only precision is float32.
    """
    if threads is not None:
        raise ArgumentError("threads cannot be set for a callable; it has its own.")
    return CallableNetwork(model, time_dtype)


class CallableNetwork:
    """A function and the dtype of its times."""

    name = "callable"

    def __init__(self, function: Callable[..., Any], time_dtype: str | None = None):
        self.function = function
        self._time_dtype = time_dtype

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> CallableCall:
        x, output = aligned((batch, *shape)), aligned((batch, *(output_shape or shape)))
        return CallableCall(self.function, self._time_dtype, x, output, copied_cond(cond, batch))


class CallableCall:
    """See :class:`~diffuse_fast.runtimes.base.BoundCall`."""

    def __init__(
        self, function: Callable[..., Any], time_dtype: str | None, x: np.ndarray, output: np.ndarray, cond: dict[str, np.ndarray]
    ):
        self.x, self.output = x, output
        self._given = np.empty_like(x)
        self._function, self._time_dtype, self._cond = function, time_dtype, cond

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        self._cond = copied_cond(cond, len(self.x))

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        integer = self._time_dtype == "int64" or (self._time_dtype is None and is_integer(t))
        time = np.full(len(self.x), require_integer_times(t) if integer else t, np.int64 if integer else np.float32)
        # Copies, because a function that works in place must not change the state or the conditioning of the next call.
        self._given[...] = self.x
        cond = {name: value.copy() for name, value in self._cond.items()} if self._cond else {}
        try:
            result = self._function(self._given, time, **cond)
        except Exception as error:
            raise network_error(t, error) from error
        result = getattr(result, "sample", result)
        if type(result).__module__.partition(".")[0] == "torch" and hasattr(result, "detach"):
            result = result.detach().cpu()
            result = (result.float() if result.is_floating_point() else result).numpy()
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f":
            what = f"an array of {result.dtype}" if isinstance(result, np.ndarray) else f"a {type(result).__name__}"
            raise NetworkError(f"the network returned {what}; it must return a floating-point array with the shape of x.")
        check_output(result.shape, self.output.shape)
        np.copyto(self.output, result, casting="same_kind")
        return self.output
