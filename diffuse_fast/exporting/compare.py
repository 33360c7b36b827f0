"""Compare an exported file with its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..artifact.document import Document
from ..errors import ExportError, NetworkError
from ..runtimes import BoundCall, Network
from .convert import prediction_of
from .example import example, times

BATCHES = (1, 3, 16)  # batch sizes at which the file must agree with the module

# The file and the module sum in different orders, so float32 networks of ordinary depth differ by some 1e-6 of the scale of the
# output. A batch size, time or layout that was fixed during the export changes it by the scale itself. The bound is in between.
TOLERANCE = 1e-4


def compare(torch: Any, module: Any, document: Document, files: Mapping[str, Network], cause: str) -> None:
    """Run the file and the module at several batch sizes and times, and compare their outputs.

    Args:
        torch: The package.
        module: What was exported.
        document: Its description.
        files: Ways to run the file, each under the name by which an error calls it.
        cause: What the error says of the likely cause.

    Raises:
        ExportError: they differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        arrays = example(document, batch, rng)
        cond = {c.name: arrays[c.name] for c in document.conditioning}
        bound = {name: file.bind(batch, document.shape, cond) for name, file in files.items()}
        for t in times(document):
            expected = _expected(torch, module, document, arrays, t)
            for name, call in bound.items():
                call.x[...] = arrays[document.input]
                _check(name, call, expected, batch, t, cause)


def _expected(torch: Any, module: Any, document: Document, arrays: dict[str, np.ndarray], t: float) -> np.ndarray:
    x = torch.from_numpy(arrays[document.input])
    time = torch.full((len(x),), t, dtype=getattr(torch, document.time.dtype))
    with torch.no_grad():
        expected = module(x, time, **{c.name: torch.from_numpy(arrays[c.name]) for c in document.conditioning})
    return prediction_of(torch, expected).numpy()


def _check(name: str, call: BoundCall, expected: np.ndarray, batch: int, t: float, cause: str) -> None:
    if expected.shape != call.output.shape:
        raise ExportError(
            f"the module returns {expected.shape} for a batch of {batch}; its shape and variance say {call.output.shape}."
        )
    if not np.isfinite(expected).all():
        raise ExportError(f"the module returns NaN or Inf for noise at time {t}; so it cannot be compared.")
    try:
        got = call(t)
    except NetworkError as error:
        raise ExportError(f"{name} does not run at batch {batch}: {error}") from error
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(got - expected).max()) / scale
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{name} differs from the module by {difference:.2g} of its output's scale at batch {batch}, time {t}; at most "
            f"{TOLERANCE:g} is rounding. {cause}"
        )
