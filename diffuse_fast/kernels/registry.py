"""Which step kernels there are, and which one is used. Plain data, best first; a forced choice runs or fails."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

from .. import _core
from ..errors import KernelUnavailableError, near
from .cpu import CpuKernel
from .reference import ReferenceKernel

ENVIRONMENT = "DIFFUSE_FAST_KERNEL"
_log = logging.getLogger("diffuse_fast")


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One implementation: its name, where its data lives, and None or the reason why it cannot run here."""

    name: str
    device: str
    unavailable: str | None


@functools.cache
def kernels() -> tuple[KernelInfo, ...]:
    """All step kernels, best first for the CPU; ``reference`` last: it is the oracle, never chosen by itself."""
    compiled = tuple(KernelInfo(name, "cpu", why) for name, why in _core.kernels())
    return (
        *compiled,
        KernelInfo("cuda", "cuda", _core.cuda_unavailable_reason()),
        KernelInfo("triton", "cuda", "this version has no Triton kernel"),
        KernelInfo("reference", "cpu", None),
    )


def get_kernel(name: str | None = None) -> CpuKernel | ReferenceKernel:
    """The kernel of that name, else the one ``DIFFUSE_FAST_KERNEL`` names, else the best this machine has.

    Raises:
        KernelUnavailableError: the kernel is unknown, or this machine cannot run it.
    """
    return _get(name or _core.environment(ENVIRONMENT) or None)


@functools.cache
def _get(name: str | None) -> CpuKernel | ReferenceKernel:
    if name is None:
        name = next(info.name for info in kernels() if info.device == "cpu" and info.unavailable is None)
        _log.debug("step kernel: %s (the best of this machine)", name)
    info = next((info for info in kernels() if info.name == name), None)
    if info is None:
        raise KernelUnavailableError(f"there is no kernel {name!r}.{near(name, (k.name for k in kernels()))}")
    if info.unavailable is not None:
        raise KernelUnavailableError(f"kernel {name!r} was forced and cannot run: {info.unavailable}.")
    return ReferenceKernel() if name == "reference" else CpuKernel(name)
