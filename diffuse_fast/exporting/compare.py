"""Compare an exported file with its module."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..artifact.document import Document
from ..errors import ExportError, NetworkError
from ..runtimes import Network
from .convert import prediction_of
from .example import example, times

BATCHES = (1, 3, 16)  # batch sizes at which the file must agree with the module

# The file and the module sum in different orders, so float32 networks of ordinary depth differ by some 1e-6 of the scale of the
# output. A batch size, time or layout that was fixed during the export changes it by the scale itself. The bound is in between.
TOLERANCE = 1e-4


def compare(torch: Any, module: Any, document: Document, file: Network) -> None:
    """Run the file and the module at several batch sizes and times, and compare their outputs.

    Raises:
        ExportError: they differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        arrays = example(document, batch, rng)
        cond = {c.name: arrays[c.name] for c in document.conditioning}
        bound = file.bind(batch, document.shape, cond)
        bound.x[...] = arrays[document.input]
        for t in times(document):
            time = torch.full((batch,), t, dtype=getattr(torch, document.time.dtype))
            with torch.no_grad():
                named = {name: torch.from_numpy(array) for name, array in cond.items()}
                expected = module(torch.from_numpy(arrays[document.input]), time, **named)
            expected = prediction_of(torch, expected).numpy()
            if expected.shape != bound.output.shape:
                raise ExportError(
                    f"the module returns {expected.shape} for a batch of {batch}; its shape and variance say {bound.output.shape}."
                )
            if not np.isfinite(expected).all():
                raise ExportError(f"the module returns NaN or Inf for noise at time {t}; so it cannot be compared.")
            try:
                got = bound(t)
            except NetworkError as error:
                raise ExportError(f"the exported file does not run at batch {batch}: {error}") from error
            scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
            difference = float(np.abs(got - expected).max()) / scale
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"the exported file differs from the module by {difference:.2g} of its output's scale at batch {batch}, time "
                    f"{t}; at most {TOLERANCE:g} is rounding. Does the module contain a fixed size, time or random number?"
                )
