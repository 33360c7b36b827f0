"""The known region of inpainting: data that samples are held to where a mask says so."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..plans.plan import Plan
from .arguments import check_finite, host_array, is_tensor


class KnownRegion(NamedTuple):
    """Data and where it is known, for n samples, each (n, *shape) float32."""

    data: np.ndarray
    mask: np.ndarray

    def part(self, which: slice) -> KnownRegion:
        """The region of some of the samples."""
        return KnownRegion(self.data[which], self.mask[which])

    def restore(self, samples: Any, plan: Plan) -> None:
        """Write the data into finished samples where the mask is 1: the step adds a difference there, which rounds.

        Does nothing if the plan ends before the data.
        """
        if plan.marginals[-1] != (1.0, 0.0):
            return
        where = self.mask == 1.0
        if is_tensor(samples):
            import torch

            samples[torch.from_numpy(where).to(samples.device)] = torch.from_numpy(self.data[where]).to(samples.device)
        else:
            np.copyto(samples, self.data, where=where)


def known_region(known: Any, mask: Any, n: int, shape: tuple[int, ...], of: str = "") -> KnownRegion | None:
    """Check the known region of n samples; None if there is none.

    Args:
        known: Floating data, ``shape`` for all samples or ``(n, *shape)``.
        mask: Numbers from 0 to 1 or booleans, 1 where the data is known. Its shape broadcasts to ``shape``; with one axis more, the
            first has length n or 1.
        of: What messages append to the arguments' names.

    Raises:
        ArgumentError, ArgumentTypeError: one is given without the other, or has a wrong shape, dtype or value.
    """
    if known is None and mask is None:
        return None
    if known is None:
        raise ArgumentError(f"mask{of} is given without known; give known=, the data where the mask is 1.")
    if mask is None:
        raise ArgumentError(f"known{of} is given without mask; give mask=, which is 1 where the data is known.")
    data = _array(f"known{of}", known)
    if data.dtype.kind != "f":
        raise ArgumentTypeError(f"known{of} has dtype {data.dtype}; it must be floating.")
    if data.shape not in (shape, (n, *shape)):
        raise ArgumentError(f"known{of} has shape {data.shape}; it must be {shape}, for all samples, or {(n, *shape)}.")
    where = _array(f"mask{of}", mask)
    if where.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"mask{of} has dtype {where.dtype}; it must be numbers from 0 to 1, or booleans.")
    if not _broadcasts(where.shape, n, shape):
        raise ArgumentError(
            f"mask{of} has shape {where.shape}; it must broadcast to a sample's {shape}, or have one axis more, of length {n} or 1."
        )
    for name, array in ((f"known{of}", data), (f"mask{of}", where)):
        check_finite(name, array)
    if ((where < 0) | (where > 1)).any():
        raise ArgumentError(f"mask{of} has values outside 0..1; it must be 1 where the data is known, and 0 elsewhere.")
    arrays = (np.broadcast_to(array.astype(np.float32), (n, *shape)) for array in (data, where))
    return KnownRegion(*arrays)


def _broadcasts(found: tuple[int, ...], n: int, shape: tuple[int, ...]) -> bool:
    if len(found) > len(shape) + 1:
        return False
    wanted = (n, *shape)[-len(found) :] if found else ()
    return all(have in (1, want) for have, want in zip(found, wanted, strict=True))


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return host_array(name, value)
    except ValueError as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentTypeError(f"{name} is a list of parts that differ in shape; give an array.") from None
