"""The step kernels: several implementations of one arithmetic (``csrc/step/step.h``). :mod:`.base` states their interface,
:mod:`.registry` chooses one."""

from __future__ import annotations

import os

from .. import _core
from ..checks import require_int
from ..errors import ArgumentError
from ..machine import cores, quota
from .forward import forward
from .registry import KernelInfo, get_kernel, kernels
from .step import step

__all__ = ["KernelInfo", "forward", "get_kernel", "kernels", "num_threads", "set_num_threads", "step"]


# The core uses the cores of the process's affinity; a container's CPU quota may allow fewer.
if quota() is not None and not os.environ.get("DIFFUSE_FAST_NUM_THREADS"):
    _core.set_num_threads(cores())


def set_num_threads(threads: int) -> None:
    """Set the number of threads that a call of the compiled core may use, including the caller. Results do not depend on it.

    The default is ``DIFFUSE_FAST_NUM_THREADS``, else the number of cores that the process may run on, or fewer if its
    container's CPU quota allows fewer.
    """
    if require_int("threads", threads, 1) > 1024:
        raise ArgumentError(f"threads is {threads}; it must be at most 1024.")
    _core.set_num_threads(threads)


def num_threads() -> int:
    """The number of threads that a call of the compiled core may use."""
    return _core.num_threads()
