"""torch modules and functions of tensors on a CUDA device, called on static tensors so that a CUDA graph can capture the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import DiffuseFastError, NetworkError
from .base import Memory, Placement, check_output, copied_cond
from .torch import dtype_of, tensor_of


def network(model: torch.nn.Module | Callable[..., Any], placement: Placement | None = None) -> TorchDeviceNetwork:
    """Make a network from a module or a function of float32 tensors, called as ``model(x, t, **cond)``.

    It returns a tensor or an object with ``.sample``, and runs on its own device and on torch's current stream.
    """
    return TorchDeviceNetwork(model, dtype_of(model) if isinstance(model, torch.nn.Module) else torch.float32)


class TorchDeviceNetwork:
    """A module or a function of tensors, and the dtype that it takes."""

    name = "torch"
    best_graph = "tick"

    def __init__(self, module: Callable[..., Any], dtype: torch.dtype):
        self.module, self.dtype = module, dtype

    def bind_device(
        self,
        memory: Memory,
        batch: int,
        shape: tuple[int, ...],
        cond: list[dict[str, Any]],
        output_shape: tuple[int, ...] | None = None,
    ) -> TorchDeviceCall:
        x, t = memory.alloc((batch, *shape)), memory.alloc((batch,))
        return TorchDeviceCall(self, memory, x, t, cond, tuple(output_shape or shape))

    def fingerprint(self) -> Any:
        if not isinstance(self.module, torch.nn.Module):
            return ()
        return tuple((v.data_ptr(), v.dtype, v.shape) for v in (*self.module.parameters(), *self.module.buffers()))


class TorchDeviceCall:
    """See :class:`~diffuse_fast.runtimes.base.DeviceCall`."""

    captures_itself = False

    def __init__(
        self,
        network: TorchDeviceNetwork,
        memory: Memory,
        x: torch.Tensor,
        t: torch.Tensor,
        cond: list[dict[str, Any]],
        output_shape: tuple[int, ...],
    ):
        self.x, self.t = x, t
        self._module, self._dtype = network.module, network.dtype
        self._memory, self._expected = memory, output_shape
        # The conditions of all evaluations, concatenated.
        self._cond: dict[str, torch.Tensor] = {}
        for name, value in copied_cond(cond[0], len(x), _on_device).items():
            shape = len(cond) * len(x), *value.shape[1:]
            self._cond[name] = torch.zeros(shape, dtype=self._dtype_of(value), device=x.device)
        self.condition(cond)

    def _dtype_of(self, value: Any) -> torch.dtype:
        dtype = value.dtype if _on_device(value) else torch.from_numpy(np.empty(0, value.dtype)).dtype
        return self._dtype if dtype.is_floating_point else dtype

    def condition(self, cond: list[dict[str, Any]]) -> None:
        batch = len(self.x)
        for j, given in enumerate(cond):
            for name, value in copied_cond(given, batch, _on_device).items():
                self._memory.upload(value, self._cond[name][j * batch : (j + 1) * batch])

    def check(self, t: float) -> None:
        """Accept every time: integers are passed as int64, others as float32."""

    def __call__(self, evaluations: int, integer_times: bool) -> list[torch.Tensor]:
        batch = len(self.x)
        # Copies, because a layer that works in place must not change the state, the times or the conditioning of the next call.
        x, t = self.x.to(self._dtype, copy=True), self.t.to(torch.int64 if integer_times else torch.float32, copy=True)
        if evaluations > 1:
            x, t = x.repeat(evaluations, *(1,) * (x.ndim - 1)), t.repeat(evaluations)
        cond = {name: value[: evaluations * batch].clone() for name, value in self._cond.items()}
        with torch.inference_mode():
            try:
                result: Any = self._module(x, t, **cond)
            except DiffuseFastError:
                raise
            except Exception as error:
                raise NetworkError(f"the network failed: {type(error).__name__}: {str(error)[:1000]}") from error
        result = tensor_of(result)
        expected = (evaluations * batch, *self._expected)
        check_output(result.shape, expected)
        if result.device != self.x.device:
            raise NetworkError(f"the network returned a tensor on {result.device}; its input was on {self.x.device}.")
        if result.dtype == torch.float64:
            result = result.float()  # the kernels read float32 and 16-bit floats
        return list(result.contiguous().split(batch))


def _on_device(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
