"""Distances between sets of images, in a space of features. NumPy, float64."""

from __future__ import annotations

import numpy as np

from ...errors import ArgumentError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Fréchet distance of the Gaussians fitted to features a (N, D) and b (M, D), in float64.

    ‖μ_a − μ_b‖² + tr(C_a + C_b − 2·(C_a^½·C_b·C_a^½)^½), Dowson & Landau 1982; what FID is made of.

    Raises:
        ArgumentError: there are fewer than two rows, the widths differ, or a feature is not finite.
    """
    a, b = _features(a, b, 2)
    cov_a, cov_b = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0.0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


def precision_recall(real: np.ndarray, generated: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """How much of what is generated looks real, and how much of what is real is generated, each from 0 to 1.

    The manifold of a set is the union of the balls around its points that reach to their ``neighbours``-th nearest of the
    same set; precision is the share of generated points within the real manifold, recall the share of real points within
    the generated one (Kynkäänniemi et al. 2019, equations 1 and 2).

    Args:
        real, generated: Features (N, D) and (M, D), each of more than ``neighbours`` points.

    Raises:
        ArgumentError: there are fewer points, the widths differ, or a feature is not finite.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((50, 4))
        >>> precision_recall(x, x), precision_recall(x, x + 100.0)
        ((1.0, 1.0), (0.0, 0.0))
    """
    real, generated = _features(real, generated, neighbours + 1)
    between = _distances(real, generated)
    within_real = (between <= _radii(real, neighbours)[:, None]).any(axis=0)
    within_generated = (between <= _radii(generated, neighbours)[None, :]).any(axis=1)
    return float(within_real.mean()), float(within_generated.mean())


def _features(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, if they are two sets of points in one space."""
    sets = np.asarray(a, np.float64), np.asarray(b, np.float64)
    for points in sets:
        if points.ndim != 2 or len(points) < least or points.shape[1] != sets[0].shape[1]:
            shapes = " and ".join(str(one.shape) for one in sets)
            raise ArgumentError(f"the features are {shapes}; they must be (N, D) and (M, D), each of {least} rows or more.")
        if not np.isfinite(points).all():
            bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
            raise ArgumentError(f"{len(bad)} of {len(points)} rows of features are not finite; the first is row {bad[0]}.")
    return sets


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    distances = _distances(points, points)
    np.fill_diagonal(distances, 0.0)  # a rounded self-distance is no neighbour
    return np.partition(distances, neighbours, axis=1)[:, neighbours]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0.0))
