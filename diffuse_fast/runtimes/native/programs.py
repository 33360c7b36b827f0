"""The program of a model's network, lowered once, or why it has none."""

from __future__ import annotations

import copy
import threading
import weakref

from ... import _core
from ...errors import ArtifactError, UnsupportedError
from ...model import Model
from ...program.lower import lower_model
from ...program.program import Program
from ..fork_safety import forget_in_child

_programs: weakref.WeakKeyDictionary[Model, Program | UnsupportedError] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forget() -> None:
    """Reset the lock in a forked child."""
    global _lock
    _lock = threading.Lock()


forget_in_child(lambda: (), _forget)


def program_of(model: Model) -> Program:
    """The program of a model's network, lowered once.

    Raises:
        UnsupportedError: an operation of the network cannot be lowered. The message names its operator, node and module.
        ArtifactError: the file is damaged.
    """
    with _lock:
        found = _programs.get(model)
        if found is None:
            try:
                found = lower_model(model)
            except UnsupportedError as error:
                found = error.with_traceback(None)
            _programs[model] = found
    if isinstance(found, UnsupportedError):
        raise copy.copy(found)
    return found


def unsuitable(model: Model) -> str | None:
    """Why ``auto`` takes another runtime for a model; None if it does not."""
    if next(name for name, reason in _core.kernels() if reason is None) == "scalar":
        return "this CPU has neither AVX2 with FMA, AVX-512 nor NEON."
    try:
        program_of(model)
    except (ArtifactError, UnsupportedError) as error:
        return str(error)
    return None
