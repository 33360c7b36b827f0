"""Any function ``f(x, t, **cond)`` on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, NetworkError
from .base import aligned, check_output, copied_cond, network_error, times


def network(
    model: Callable[..., Any], *, threads: int | None = None, float_times: bool = False, precision: str = "float32"
) -> CallableNetwork:
    """Make a network from a function.

    It receives ``x`` (batch, *shape) float32, ``t`` (batch,) and the conditioning, and may modify them. It returns an array, a
    torch tensor, or an object with one of them as ``.sample``. The only precision is float32.
    """
    if threads is not None:
        raise ArgumentError("threads cannot be set for a callable; it has its own.")
    return CallableNetwork(model, float_times)


class CallableNetwork:
    """A function, and whether integral times are float32 too."""

    name = "callable"

    def __init__(self, function: Callable[..., Any], float_times: bool = False):
        self.function = function
        self._float_times = float_times

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> CallableCall:
        x, output = aligned((batch, *shape)), aligned((batch, *(output_shape or shape)))
        return CallableCall(self.function, self._float_times, x, output, copied_cond(cond, batch))


class CallableCall:
    """See :class:`~diffuse_fast.runtimes.base.BoundCall`."""

    def __init__(
        self, function: Callable[..., Any], float_times: bool, x: np.ndarray, output: np.ndarray, cond: dict[str, np.ndarray]
    ):
        self.x, self.output = x, output
        self._given = np.empty_like(x)
        self._function, self._float_times, self._cond = function, float_times, cond

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        self._cond = copied_cond(cond, len(self.x))

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        time = times(t, len(self.x), self._float_times)
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
