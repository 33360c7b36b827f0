"""The errors. Everything this package raises derives from :class:`DiffuseFastError` and from the built-in a caller would
expect, so both ``except df.DiffuseFastError`` and ``except ValueError`` work."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from typing import Any


class DiffuseFastError(Exception):
    """Base class of every error raised by diffuse_fast."""


class ArgumentError(DiffuseFastError, ValueError):
    """An argument has a value that cannot be used; the message names it."""


class ArgumentTypeError(DiffuseFastError, TypeError):
    """An argument has a type that cannot be used, or a keyword is unknown; the message names it."""


class LongStepWarning(UserWarning):
    """A plan takes a step that leaps too far for its solver, because the scheduler that it was read from does."""


class PlanError(DiffuseFastError, ValueError):
    """A plan is inconsistent, or a solver and a schedule make no sense together."""


class ArtifactError(DiffuseFastError, ValueError):
    """A model file is truncated, foreign, hostile or contradicts itself; the message names the field."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """There is no model file at the path, and no bundled model of that name."""


class NonFiniteError(DiffuseFastError, ArithmeticError):
    """A network returned NaN or Inf. ``row`` and ``samples`` say where."""

    def __init__(self, message: str, *, row: int, samples: tuple[int, ...]):
        super().__init__(message)
        self.row = row
        self.samples = samples

    def __reduce__(self) -> tuple[Any, ...]:  # BaseException's own would leave out the keywords
        return functools.partial(type(self), row=self.row, samples=self.samples), self.args, self.__dict__


class NetworkError(DiffuseFastError, RuntimeError):
    """A network failed while it ran, or returned something other than its output."""


class KernelUnavailableError(DiffuseFastError, RuntimeError):
    """A forced kernel, device or precision is not available on this machine."""


class DeviceError(DiffuseFastError, RuntimeError):
    """A device or its driver reported an error: no memory left, a launch that failed."""


class RuntimeUnavailableError(DiffuseFastError, ImportError):
    """A runtime or an optional package is not installed; the message names the extra that brings it."""


class UnavailableNameError(DiffuseFastError, AttributeError):
    """A public name of the package needs a package that is not installed; the message names the extra that brings it."""


class CoreMissingError(DiffuseFastError, ImportError):
    """The compiled core is not beside the Python files: Python was started in the folder of a checkout."""


class OutputError(DiffuseFastError, OSError):
    """A file cannot be written. Nothing half-written was left behind."""


class DownloadError(DiffuseFastError, ConnectionError):
    """A file that a package registry has could not be fetched; the message says how to bring it by other means."""


class ExportError(DiffuseFastError, RuntimeError):
    """A network could not be exported, or its export does not compute what the network computes."""


class TrainingError(DiffuseFastError, RuntimeError):
    """Training stopped: the loss is not finite, or data and configuration do not fit."""


def install_hint(extra: str | None) -> str:
    """The tail of a message about a missing package: what installs it. The package is on no index, so it is installed from its
    checkout."""
    return f"pip install '.[{extra}]' in the checkout of diffuse_fast"


def near(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the close ones, then all."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{hint} Known: {', '.join(known)}."
