"""Normal distributions with independent elements, such as every conditional of the forward process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import to_float64
from ..errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, variance), element by element independent.

    Attributes:
        mean: (batch, ...) float64.
        variance: Broadcasts to ``mean``, not negative; 0 is a point mass.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> q = df.theory.Gaussian(np.zeros((1, 2)), np.array(1.0))
        >>> q.log_density(np.zeros((1, 2))).round(6)
        array([-1.837877])
    """

    mean: np.ndarray
    variance: np.ndarray

    def log_density(self, x: Any) -> np.ndarray:
        """log N(x; mean, variance), in nats, summed over the elements of a sample: (batch,).

        Raises:
            ArgumentError: a variance is 0, so there is no density.
        """
        if not np.all(self.variance > 0.0):
            raise ArgumentError("a variance is 0; a point has no density.")
        each = -0.5 * (np.log(2.0 * math.pi * self.variance) + (to_float64("x", x) - self.mean) ** 2 / self.variance)
        return per_sample(each)

    def sample(self, z: Any) -> np.ndarray:
        """mean + sqrt(variance)·z for standard normal ``z`` of the shape of ``mean``.

        Example:
            >>> import numpy as np, diffuse_fast as df
            >>> df.theory.Gaussian(np.ones((1, 2)), np.array(4.0)).sample(np.array([[0.0, 1.0]]))
            array([[1., 3.]])
        """
        return self.mean + np.sqrt(self.variance) * to_float64("z", z)


def kl(q: Gaussian, p: Gaussian) -> np.ndarray:
    """D_KL(q ‖ p) = ½·Σ (log(v_p/v_q) + (v_q + (m_q − m_p)²)/v_p − 1), in nats (Kullback & Leibler 1951; closed form as used
    in DDPM, Ho et al. 2020, eq. 5).

    Args:
        q, p: Distributions of the same shape.

    Returns:
        (batch,), summed over the elements of a sample. 0 if both are the same point, inf if only one of them is a point.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> q, p = (df.theory.Gaussian(np.full((1, 1), m), np.array(1.0)) for m in (0.0, 2.0))
        >>> df.theory.kl(q, p)
        array([2.])
    """
    shape = np.broadcast_shapes(q.mean.shape, p.mean.shape)
    v_q, v_p = (np.broadcast_to(g.variance, shape) for g in (q, p))
    distance = (q.mean - p.mean) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = v_q / v_p
        # r − 1 − log(r), accurate near r = 1, which is typical of a fine grid.
        each = 0.5 * ((ratio - 1.0) - np.log1p(ratio - 1.0) + distance / v_p)
    each = np.where((v_p == 0.0) & (v_q == 0.0), np.where(distance == 0.0, 0.0, math.inf), each)
    return per_sample(np.where((v_p == 0.0) ^ (v_q == 0.0), math.inf, each))


def per_sample(each: np.ndarray) -> np.ndarray:
    """The sum over all but the first dimension."""
    return each.sum(axis=tuple(range(1, each.ndim)))
