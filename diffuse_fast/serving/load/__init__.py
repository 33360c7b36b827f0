"""Measure a server under load: open-loop Poisson arrivals, their latencies, and what was done within its deadline."""

from __future__ import annotations

from .run import measure

__all__ = ["measure"]
