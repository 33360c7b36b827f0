"""Runtimes and forked children: a child has its parent's memory, but none of its threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from ..errors import NetworkError

_forks = 0  # between the first process and this one


def forget_in_child(held: Callable[[], object], forget: Callable[[], None]) -> None:
    """Have every forked child forget what its parent made.

    It is forgotten, not destroyed: a destructor of sessions waits for their threads, and for a lock if one of these had it when the
    process was forked. The memory is the parent's as long as nobody writes to it.

    Args:
        held: What must not be destroyed in the child.
        forget: Makes the child begin anew.
    """

    def child() -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held()))  # not even when the interpreter ends
        forget()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=child)


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Threaded:
    """What needs threads that were started in this process: a forked child has none of them, and would wait for them for ever."""

    def __init__(self) -> None:
        self._forks = _forks

    def check_process(self, instead: str = "make the Sampler in the forked child") -> None:
        """Whether the threads are there; ``instead`` is what else can be done.

        Raises:
            NetworkError: this process was forked since.
        """
        if self._forks != _forks:
            raise NetworkError(
                f"the network was made ready before this process was forked, and its threads stayed in the other; {instead}, or "
                f"start children by multiprocessing's 'spawn'."
            )
