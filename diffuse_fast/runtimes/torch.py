"""torch modules and diffusers networks on the CPU. :mod:`.torch_cuda` runs them on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import ArgumentError, NetworkError, UnavailableError
from .base import aligned, check_output, copied_cond, network_error, times
from .fork_safety import ThreadOwner

_threads: ThreadOwner | None = None  # of torch's thread pool, which a forked child does not have and does not make anew

_PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_convolution")


def network(
    model: torch.nn.Module, *, threads: int | None = None, float_times: bool = False, precision: str = "float32"
) -> TorchNetwork:
    """Make a network from a module that is called as ``module(x, t, **cond)`` and returns a tensor or an object with ``.sample``.

    ``float32`` runs the module unchanged. ``bfloat16`` uses torch's autocast: convolutions and matrix products are in bfloat16,
    with weights cast in each call; operations that autocast considers sensitive stay in float32.

    Raises:
        UnavailableError: this machine does not have the precision.
    """
    if threads is not None:
        raise ArgumentError("threads cannot be set for a torch module; call torch.set_num_threads.")
    if precision == "bfloat16" and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        raise UnavailableError("precision is 'bfloat16', which this CPU does not have; torch would emulate it.")
    return TorchNetwork(model, float_times, precision)


def dtype_of(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype that a module computes in, which is that of its first floating-point tensor.

    Raises:
        ArgumentError: the module has a dropout or batch normalisation in training mode.
    """
    for layer in module.modules():
        drops = isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p > 0
        if layer.training and (drops or isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)):
            raise ArgumentError(f"the module has a {type(layer).__name__} in training mode; call module.eval() first.")
    tensors = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def tensor_of(result: Any) -> torch.Tensor:
    """Return the tensor that a module returned, also as ``.sample``.

    Raises:
        NetworkError: it is no floating-point tensor.
    """
    result = getattr(result, "sample", result)
    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        what = result.dtype if isinstance(result, torch.Tensor) else type(result).__name__
        raise NetworkError(f"the network returned {what}; it must return a floating-point tensor or an object with .sample.")
    return result


def computes_in_bfloat16(module: torch.nn.Module, x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> bool:
    """Check by one call that autocast reaches the module's matrix products, and return True.

    It does not reach a scripted module, or one that disables autocast.

    Raises:
        UnavailableError: no product is in bfloat16.
    """
    seen: set[torch.dtype] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ in _PRODUCTS:
                seen.update(a.dtype for a in args if isinstance(a, torch.Tensor))
            return func(*args, **(kwargs or {}))

    with Watch():
        module(x, t, **cond)
    if torch.bfloat16 not in seen:
        raise UnavailableError("precision is 'bfloat16', but autocast does not reach the module's products; use 'float32'.")
    return True


def _check_process() -> None:
    """Check that torch's threads exist, if it uses any.

    Raises:
        NetworkError: they stayed in the parent of this forked process. A call would wait for them forever.
    """
    global _threads
    if torch.get_num_threads() == 1:
        return
    if _threads is None:
        _threads = ThreadOwner()
    _threads.check_process("call torch.set_num_threads(1) in the forked child")


class TorchNetwork:
    """A module in its own dtype. Its mode is not changed; a module that would draw random numbers is an error."""

    name = "torch"

    def __init__(self, module: torch.nn.Module, float_times: bool = False, precision: str = "float32"):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.device.type != "cpu":
                raise UnavailableError(
                    f"the module has tensors on the device {tensor.device}, but runs on the CPU here; call module.cpu()."
                )
        self.module = module
        self.dtype = dtype_of(module)
        self._float_times = float_times
        self._autocast = precision == "bfloat16"
        if self._autocast and self.dtype not in (torch.float32, torch.bfloat16):
            raise ArgumentError(f"precision is 'bfloat16', but the module is {self.dtype}; call module.float() first.")

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> TorchCall:
        x, output = aligned((batch, *shape)), aligned((batch, *(output_shape or shape)))
        return TorchCall(self.module, self.dtype, self._float_times, x, output, cond, self._autocast)


class TorchCall:
    """See :class:`~diffuse_fast.runtimes.base.BoundCall`."""

    def __init__(
        self,
        module: torch.nn.Module,
        dtype: torch.dtype,
        float_times: bool,
        x: np.ndarray,
        output: np.ndarray,
        cond: dict[str, np.ndarray],
        autocast: bool = False,
    ):
        self.x, self.output = x, output
        self._module, self._dtype, self._float_times = module, dtype, float_times
        self._autocast, self._checked = autocast, not autocast
        self._x, self._output = torch.from_numpy(x), torch.from_numpy(output)  # the same memory
        self.condition(cond)

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        given = {name: torch.from_numpy(array) for name, array in copied_cond(cond, len(self.x)).items()}
        self._cond = {name: t.to(self._dtype) if t.is_floating_point() else t for name, t in given.items()}

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        _check_process()
        time = torch.from_numpy(times(t, len(self.x), self._float_times))
        # Copies, because a layer that works in place must not change the state or the conditioning of the next call.
        x = self._x.to(self._dtype, copy=True)
        cond = {name: value.clone() for name, value in self._cond.items()}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            try:
                if not self._checked:
                    self._checked = computes_in_bfloat16(self._module, x.clone(), time.clone(), self._cond)
                result: Any = self._module(x, time, **cond)
            except Exception as error:
                raise network_error(t, error) from error
            result = tensor_of(result)
            check_output(result.shape, self.output.shape)
            self._output.copy_(result)
        return self.output
