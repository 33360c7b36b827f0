"""Protection against use after a fork: a child process has its parent's memory, but none of its threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from ..errors import NetworkError

_forks = 0  # number of forks from the first process to this one


def forget_in_child(held: Callable[[], object], forget: Callable[[], None]) -> None:
    """Make every forked child drop the sessions of its parent without destroying them.

    The destructor of a session would wait for threads that the child does not have. The memory stays shared with the parent as long
    as neither writes to it.

    Args:
        held: Returns the objects that must not be destroyed in the child.
        forget: Resets the caches of the child.
    """

    def child() -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held()))  # never freed, not even when the interpreter ends
        forget()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=child)


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class ThreadOwner:
    """An object whose threads belong to the process that made it. A forked child would wait for them forever."""

    def __init__(self) -> None:
        self._forks = _forks

    def check_process(self, instead: str = "make the Sampler in the forked child") -> None:
        """Check that the threads exist.

        Args:
            instead: What to do instead, for the message.

        Raises:
            NetworkError: this process was forked after the object was made.
        """
        if self._forks != _forks:
            raise NetworkError(
                f"the network was prepared before this process was forked, and its threads stayed in the parent; {instead}, or "
                f"start children with multiprocessing's 'spawn'."
            )
