"""Adams' method on a given grid, for a slope that is known only at the points of the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ORDER = 4


def integrate(slope: Callable[[int, np.ndarray], np.ndarray], nodes: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The state at the last node, by the Adams-Bashforth-Moulton predictor-corrector method of order 4 for nonuniform steps.

    It takes one evaluation per node (PEC; Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, sections III.1
    and III.5).

    The first steps have lower orders, starting with 2 (Heun's method), whose error is O(step³).

    Args:
        slope: ``slope(i, state)``, the derivative at node i.
        nodes: (N,), strictly monotonic, N at least 2.
        state: The state at the first node.
    """
    known = [slope(0, state)]  # at the nodes before and at i
    for i in range(len(nodes) - 1):
        before = nodes[i + 1 - len(known) : i + 1]
        predicted = state + _integral(before, nodes[i : i + 2], known)
        known = [*known, slope(i + 1, predicted)][-ORDER:]
        state = state + _integral(nodes[i + 2 - len(known) : i + 2], nodes[i : i + 2], known)
    return state


def _integral(at: np.ndarray, ends: np.ndarray, slopes: list[np.ndarray]) -> np.ndarray:
    """The integral between two ends of the polynomial through slopes."""
    step = ends[1] - ends[0]
    powers = np.vander((at - ends[0]) / step, increasing=True).T
    weights = step * np.linalg.solve(powers, 1.0 / np.arange(1, len(at) + 1))
    return sum(w * s for w, s in zip(weights, slopes, strict=True))
