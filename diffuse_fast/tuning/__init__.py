"""Choosing by measurement how a model is run on this machine. The one place where anything is timed."""

from __future__ import annotations

from .result import Candidate, Tuning
from .search import tune

__all__ = ["Candidate", "Tuning", "tune"]
