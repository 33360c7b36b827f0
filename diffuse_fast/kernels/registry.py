"""Which step kernels there are, and which one is used. Plain data, best first; a forced choice runs or fails."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..errors import ArgumentTypeError, UnavailableError, suggest
from . import triton
from .cpu import CpuKernel
from .cuda import CudaKernel
from .reference import ReferenceKernel

ENVIRONMENT = "DIFFUSE_FAST_KERNEL"
_log = logging.getLogger("diffuse_fast")


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One implementation: its name, where its data lives, and None or the reason why it cannot run here."""

    name: str
    device: str
    unavailable: str | None


# Why a kernel cannot run here, or None. Asked only where it matters: to answer may load torch or start a driver.
_DEVICE_KERNELS: dict[str, Callable[[], str | None]] = {"triton": triton.unavailable_reason, "cuda": _core.cuda_unavailable_reason}


@functools.cache
def kernels() -> tuple[KernelInfo, ...]:
    """All step kernels, best first for the CPU, then for a CUDA device; ``reference`` last: it is the oracle, never chosen by
    itself."""
    return (
        *(KernelInfo(name, "cpu", why) for name, why in _core.kernels()),
        *(KernelInfo(name, "cuda", unavailable()) for name, unavailable in _DEVICE_KERNELS.items()),
        KernelInfo("reference", "cpu", None),
    )


def get_kernel(name: str | None = None, *, device: str | None = None) -> Any:
    """The kernel of that name, else the one ``DIFFUSE_FAST_KERNEL`` names, else the best this machine has for the device.

    Args:
        name: One of :func:`kernels`.
        device: ``"cpu"`` or ``"cuda"``: where the data are. None asks nothing of a kernel that was named, and else means the CPU.

    Raises:
        ArgumentTypeError: the name is no text.
        UnavailableError: the kernel is unknown, this machine cannot run it, or it runs elsewhere than on ``device``.
    """
    if name is not None and not isinstance(name, str):
        raise ArgumentTypeError(f"kernel is {name!r}; give the name of a kernel, as 'scalar', or leave it out.")
    kernel = _get(name or _core.environment(ENVIRONMENT) or None, device or "cpu")
    runs_on = getattr(kernel, "device", "cpu")
    if device is not None and runs_on != device:
        raise UnavailableError(f"kernel {kernel.name!r} was forced and steps on {runs_on}; the data are on {device}.")
    return kernel


@functools.cache
def _get(name: str | None, device: str) -> Any:
    if name is None:
        name = _best(device)
        _log.debug("step kernel: %s (the best of this machine for %s)", name, device)
    compiled = dict(_core.kernels())
    if name == "reference":
        return ReferenceKernel()
    if name not in compiled and name not in _DEVICE_KERNELS:
        raise UnavailableError(f"there is no kernel {name!r}.{suggest(name, (*compiled, *_DEVICE_KERNELS, 'reference'))}")
    why = compiled[name] if name in compiled else _DEVICE_KERNELS[name]()
    if why is not None:
        raise UnavailableError(f"kernel {name!r} was forced and cannot run: {why}.")
    if name == "cuda":
        return CudaKernel()
    return triton.TritonKernel() if name == "triton" else CpuKernel(name)


def _best(device: str) -> str:
    if device == "cpu":
        return next(name for name, why in _core.kernels() if why is None)
    reasons = {name: unavailable() for name, unavailable in _DEVICE_KERNELS.items()}
    for name, why in reasons.items():
        if why is None:
            return name
    told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise UnavailableError(f"no step kernel runs on a CUDA device here ({told}).")
