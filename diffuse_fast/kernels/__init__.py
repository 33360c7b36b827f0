"""The step kernels: one arithmetic (``csrc/step/step.h``), several implementations, chosen by :mod:`.registry`."""

from __future__ import annotations

import os

from .. import _core
from ..errors import ArgumentError
from ..machine import cores, quota
from .forward import forward
from .registry import KernelInfo, get_kernel, kernels
from .step import step

__all__ = ["KernelInfo", "forward", "get_kernel", "kernels", "num_threads", "set_num_threads", "step"]


# The core counts the cores of the process's affinity; a container's quota may pay for fewer.
if quota() is not None and not os.environ.get("DIFFUSE_FAST_NUM_THREADS"):
    _core.set_num_threads(cores())


def set_num_threads(threads: int) -> None:
    """Threads a call of the compiled core may use, the caller included; results do not depend on it.

    Starts as ``DIFFUSE_FAST_NUM_THREADS``, else the cores this process may run on, or that its
    container's CPU quota pays for.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise ArgumentError(f"threads is {threads!r}; it must be a whole number from 1 to 1024.")
    _core.set_num_threads(threads)


def num_threads() -> int:
    """Threads a call of the compiled core may use."""
    return _core.num_threads()
