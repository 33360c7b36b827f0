"""A CUDA device as torch has it: torch's allocator, current stream and graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...errors import ArgumentError, ArgumentTypeError, NetworkError

# torch captures one graph at a time in a process.
_capturing = threading.Lock()


class TorchDevice:
    """See :class:`~diffuse_fast.engine.devices.base.Device`. Work goes to torch's current stream."""

    kernels: tuple[str, ...] = ("triton", "cuda")
    captures = True

    def __init__(self, index: int):
        self.name = f"cuda:{index}"
        self._device = torch.device("cuda", index)
        self._side = torch.cuda.Stream(self._device)

    @property
    def stream(self) -> int:
        return torch.cuda.current_stream(self._device).cuda_stream

    @contextmanager
    def scope(self) -> Iterator[None]:
        with torch.cuda.device(self._device), torch.no_grad():
            yield

    def alloc(self, shape: tuple[int, ...], dtype: Any = np.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=self._device)

    def upload(self, array: Any, into: torch.Tensor) -> None:
        into.copy_(array if isinstance(array, torch.Tensor) else torch.from_numpy(array), non_blocking=True)

    def part(self, array: torch.Tensor, i: int) -> torch.Tensor:
        return array[i]

    def download(self, array: torch.Tensor) -> np.ndarray:
        return array.cpu().numpy()

    def own(self, array: torch.Tensor, as_tensor: bool) -> torch.Tensor:
        return array.clone()

    def take(self, name: str, value: Any) -> torch.Tensor:
        try:
            tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
        except (BufferError, RuntimeError) as error:
            raise ArgumentError(f"{name} cannot be handed over: {error}") from None
        if tensor.device != self._device:
            raise ArgumentError(f"{name} is on {tensor.device}; the model is sampled on {self.name}.")
        if tensor.is_complex():
            raise ArgumentTypeError(f"{name} has dtype {tensor.dtype}; it must be real numbers.")
        return tensor

    def take_noise(self, name: str, value: Any) -> torch.Tensor:
        tensor = self.take(name, value)
        if not tensor.is_floating_point():
            raise ArgumentTypeError(f"{name} has dtype {tensor.dtype}; it must be floating.")
        return tensor

    def stack(self, arrays: list[Any]) -> torch.Tensor:
        tensors = (a if isinstance(a, torch.Tensor) else torch.from_numpy(np.array(a)).to(self._device) for a in arrays)
        new = torch.stack(list(tensors))
        self.synchronize()
        return new

    def start(self, noise: Any, scale: float, into: torch.Tensor) -> None:
        tensor = noise if isinstance(noise, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(noise))
        torch.mul(tensor.to(self._device, torch.float32, non_blocking=True), float(np.float32(scale)), out=into)

    def warm_up(self, run: Callable[[], Any]) -> Any:
        # On a side stream, as torch asks: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with _capturing, torch.cuda.stream(self._side):  # what another thread captures is on it too
            result = run()
        current.wait_stream(self._side)
        return result

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def capture(self, run: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads may go on allocating.
            with _capturing, torch.cuda.graph(graph, pool=pool, stream=self._side, capture_error_mode="thread_local"):
                run()
        except Exception as error:
            raise NetworkError(
                f"the network cannot be captured in a CUDA graph: {_first(error)}. With graph='none' it is called without one."
            ) from error
        return graph

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)


def _first(error: BaseException) -> str:
    """Describe the first error of a chain: the last one of a broken capture says only that it is broken."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error)[:1000]}"
