"""The engine: a network, a plan, a kernel, and the loop that runs them."""

from __future__ import annotations

from .probability_flow import probability_flow
from .request import Request
from .sample import sample
from .sampler import Sampler

__all__ = ["Request", "Sampler", "probability_flow", "sample"]
