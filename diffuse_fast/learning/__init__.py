"""Solvers learned for a model: times and weights fitted so that few steps approximate a fine solver."""

from __future__ import annotations

from .learn import Learned, learn_solver

__all__ = ["Learned", "learn_solver"]
