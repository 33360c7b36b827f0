"""Exceptions. Each derives from :class:`DiffuseFastError` and from the built-in that a caller would expect, so both
``except df.DiffuseFastError`` and ``except ValueError`` work."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from typing import Any


class DiffuseFastError(Exception):
    """Base class of every error raised by diffuse_fast."""


class ArgumentError(DiffuseFastError, ValueError):
    """An argument has an invalid value; the message names it."""


class ArgumentTypeError(DiffuseFastError, TypeError):
    """An argument has an invalid type, or a keyword is unknown; the message names it."""


class LongStepWarning(UserWarning):
    """A plan read from a scheduler takes a longer step than its solver is accurate for."""


class PlanError(DiffuseFastError, ValueError):
    """A plan is inconsistent, or its solver does not work with its schedule."""


class ArtifactError(DiffuseFastError, ValueError):
    """A model file is truncated, unsafe, inconsistent or of another format; the message names the field."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """No model file exists at the path, and no bundled model has that name."""


class NonFiniteError(DiffuseFastError, ArithmeticError):
    """A network returned NaN or Inf.

    Attributes:
        row: Index of the plan's row.
        samples: Indices of the samples.
    """

    def __init__(self, message: str, *, row: int, samples: tuple[int, ...]):
        super().__init__(message)
        self.row = row
        self.samples = samples

    def __reduce__(self) -> tuple[Any, ...]:  # BaseException.__reduce__ drops keyword arguments
        return functools.partial(type(self), row=self.row, samples=self.samples), self.args, self.__dict__


class NetworkError(DiffuseFastError, RuntimeError):
    """A network raised an error, or returned an output of the wrong type or shape."""


class StoppedError(DiffuseFastError, RuntimeError):
    """Samples were stopped from another thread."""


class UnavailableError(DiffuseFastError, RuntimeError):
    """This machine or this build cannot provide what was asked for: a kernel, device, precision or execution provider."""


class UnsupportedError(DiffuseFastError, NotImplementedError):
    """The native runtime does not support a network; the message names the operation, its node and its module."""


class MemoryLimitError(DiffuseFastError, MemoryError):
    """A network would take more memory than this process may use; the message states both."""


class DeviceError(DiffuseFastError, RuntimeError):
    """A device or its driver reported an error, such as an allocation or a launch that failed."""


class MissingDependencyError(DiffuseFastError, ImportError):
    """A package that the call needs is not installed; the message names the extra that installs it."""


class UnavailableNameError(DiffuseFastError, AttributeError):
    """A public name needs a package that is not installed; the message names the extra that installs it."""


class CoreMissingError(DiffuseFastError, ImportError):
    """The compiled core is not beside the Python files, because Python was started in a source checkout."""


class OutputError(DiffuseFastError, OSError):
    """A file cannot be written. No partial file is left behind."""


class DownloadError(DiffuseFastError, ConnectionError):
    """A file could not be downloaded; the message says how to provide it another way."""


class ExportError(DiffuseFastError, RuntimeError):
    """A network could not be exported, or the exported file computes something else."""


class TrainingError(DiffuseFastError, RuntimeError):
    """Training stopped, because the loss is not finite or the data do not match the configuration."""


class UnknownModelError(DiffuseFastError, KeyError):
    """A server has no model of that name."""

    __str__ = Exception.__str__  # KeyError shows the repr


class QueueFullError(DiffuseFastError, RuntimeError):
    """A server's queue is full.

    Attributes:
        retry_after: Seconds after which to try again.
    """

    def __init__(self, message: str, *, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:  # as for NonFiniteError
        return functools.partial(type(self), retry_after=self.retry_after), self.args, self.__dict__


class DrainingError(DiffuseFastError, RuntimeError):
    """A server takes no new jobs, because it stops."""


class StartError(DiffuseFastError, RuntimeError):
    """A worker did not become ready."""


class LoadError(DiffuseFastError, RuntimeError):
    """A server under measurement does not start or answer, or refuses a request that is alone."""


class WorkerError(DiffuseFastError, RuntimeError):
    """A worker process died again and again over the same work."""


def install_hint(extra: str | None) -> str:
    """Return the end of a message about a missing package: the command that installs it, from a source checkout."""
    return f"pip install '.[{extra}]' in the checkout of diffuse_fast"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known names, then all of them."""
    known = sorted(known)
    import difflib  # not needed until something is misspelt

    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{hint} Known: {', '.join(known)}."


# Names of earlier versions. An alias, so that ``except KernelUnavailableError`` still catches what it caught.
_RENAMED = {"KernelUnavailableError": UnavailableError, "RuntimeUnavailableError": MissingDependencyError}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed = _RENAMED[name]
    warnings.warn(f"errors.{name} was renamed to errors.{renamed.__name__}", DeprecationWarning, stacklevel=2)
    return renamed
