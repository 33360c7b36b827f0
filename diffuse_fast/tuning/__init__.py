"""Choose how to run a model on this machine by measurement. Nothing else in the package times anything."""

from __future__ import annotations

from .result import Candidate, Tuning
from .search import tune

__all__ = ["Candidate", "Tuning", "tune"]
