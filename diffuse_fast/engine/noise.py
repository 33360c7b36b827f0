"""``noise``: the starting noise of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import require_int
from ..kernels import get_kernel
from ..kernels.reference import STREAM_INITIAL
from .arguments import Seed, seeds_of, shape_of_sample


def noise(seed: Seed, n: int, shape: Sequence[int], *, first_index: int = 0) -> np.ndarray:
    """Draw the N(0, 1) noise that ``df.sample(model, n, ..., seed=seed)`` starts from.

    Args:
        seed: As for :func:`~diffuse_fast.sample`: one seed, a list of n, or None for a fresh one, which is logged.
        n: Number of samples, from 1.
        shape: Shape of one sample.
        first_index: Index of the first sample under the seed.

    Returns:
        (n, *shape) float32. Given as ``noise=``, it gives the samples of the seed with every deterministic solver.

    Raises:
        ArgumentError, ArgumentTypeError: as for :func:`~diffuse_fast.sample`.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> z = df.noise(0, 4, (1, 8, 8))
        >>> bool((df.sample("digits", 4, 5, noise=z) == df.sample("digits", 4, 5, seed=0)).all())
        True
    """
    out = np.empty((require_int("n", n, 1), *shape_of_sample(shape, None)), np.float32)
    seeds, indices = seeds_of(seed, n, first_index)
    kernel = get_kernel()
    kernel.normals(out, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL)
    return out
