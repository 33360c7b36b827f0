"""The table of step kernels, best first, and the choice of one. A forced kernel runs or fails; there is no silent fallback."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

from .. import _core
from ..errors import ArgumentTypeError, UnavailableError, suggest
from .base import DeviceKernel, HostKernel, Kernel
from .cpu import CpuKernel
from .reference import ReferenceKernel

ENVIRONMENT = "DIFFUSE_FAST_KERNEL"
_log = logging.getLogger("diffuse_fast")


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One implementation.

    Attributes:
        name: Its name.
        device: ``"cpu"`` or ``"cuda"``: where its data are.
        unavailable: Why it cannot run on this machine, or None.
    """

    name: str
    device: str
    unavailable: str | None


@dataclass(frozen=True, slots=True)
class _Implementation:
    """A kernel that can be chosen. ``unavailable`` is called only when needed: it may load torch or initialise a driver."""

    device: str
    unavailable: Callable[[], str | None]
    create: Callable[[], Kernel]


def _compiled(name: str, reason: str | None) -> _Implementation:
    def create() -> HostKernel:
        return CpuKernel(name)

    return _Implementation("cpu", lambda: reason, create)


# What is for a device is imported when a device is asked about.


def _triton_unavailable() -> str | None:
    from .triton import unavailable_reason

    return unavailable_reason()


def _create_triton() -> DeviceKernel:
    from .triton import TritonKernel

    return TritonKernel()


def _create_cuda() -> DeviceKernel:
    from .cuda import CudaKernel

    return CudaKernel()


def _create_reference() -> HostKernel:
    return ReferenceKernel()


# Best first for each device. The reference is last: it is the oracle and is never chosen automatically.
_IMPLEMENTATIONS: dict[str, _Implementation] = {
    **{name: _compiled(name, reason) for name, reason in _core.kernels()},
    "triton": _Implementation("cuda", _triton_unavailable, _create_triton),
    "cuda": _Implementation("cuda", _core.cuda_unavailable_reason, _create_cuda),
    "reference": _Implementation("cpu", lambda: None, _create_reference),
}


@functools.cache
def kernels() -> tuple[KernelInfo, ...]:
    """All step kernels, best first for each device; ``reference`` is last and never chosen automatically."""
    return tuple(KernelInfo(name, kernel.device, kernel.unavailable()) for name, kernel in _IMPLEMENTATIONS.items())


@overload
def get_kernel(name: str | None = None, *, device: Literal["cpu"]) -> HostKernel: ...
@overload
def get_kernel(name: str | None = None, *, device: Literal["cuda"]) -> DeviceKernel: ...
@overload
def get_kernel(name: str | None = None, *, device: str | None = None) -> Any: ...
def get_kernel(name: str | None = None, *, device: str | None = None) -> Any:
    """The kernel of that name, else the one that ``DIFFUSE_FAST_KERNEL`` names, else the best available one for the device.

    Args:
        name: One of :func:`kernels`.
        device: ``"cpu"`` or ``"cuda"``: where the data are. None: any device for a named kernel, else the CPU.

    Raises:
        ArgumentTypeError: the name is not a string.
        UnavailableError: the kernel is unknown, cannot run on this machine, or runs on another device than ``device``.
    """
    if name is not None and not isinstance(name, str):
        raise ArgumentTypeError(f"kernel is {name!r}; give the name of a kernel, for example 'scalar', or leave it out.")
    kernel = _get(name or _core.environment(ENVIRONMENT) or None, device or "cpu")
    if device is not None and kernel.device != device:
        raise UnavailableError(f"kernel {kernel.name!r} was forced and runs on {kernel.device}; the data are on {device}.")
    return kernel


@functools.cache
def _get(name: str | None, device: str) -> Kernel:
    if name is None:
        name = _best(device)
        _log.debug("step kernel: %s (the best of this machine for %s)", name, device)
    if name not in _IMPLEMENTATIONS:
        raise UnavailableError(f"there is no kernel {name!r}.{suggest(name, _IMPLEMENTATIONS)}")
    kernel = _IMPLEMENTATIONS[name]
    if (reason := kernel.unavailable()) is not None:
        raise UnavailableError(f"kernel {name!r} was forced and cannot run: {reason}.")
    return kernel.create()


def _best(device: str) -> str:
    reasons = []
    for name, kernel in _IMPLEMENTATIONS.items():
        if kernel.device == device:
            if (reason := kernel.unavailable()) is None:
                return name
            reasons.append(f"{name}: {reason}")
    raise UnavailableError(f"no step kernel runs on a CUDA device here ({'; '.join(reasons)}).")
