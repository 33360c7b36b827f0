"""int8: which layers compute in it, over which ranges, and what that costs, written into the artifact."""

from __future__ import annotations

from .quantize import quantize

__all__ = ["quantize"]
