"""Which memory a step may write: that of ``x`` itself, or memory apart from it."""

from __future__ import annotations

from ..errors import ArgumentError


def overlap(first: int, first_bytes: int, second: int, second_bytes: int) -> bool:
    """Whether two pieces of memory, by address and size, share bytes."""
    return first < second + second_bytes and second < first + first_bytes


def check_out(x: int, out: int, size: int) -> None:
    """Refuses an ``out`` that shares a part of ``x``: an element would be read after it was written. Both are addresses of as many
    bytes.

    Raises:
        ArgumentError: they overlap and are not the same.
    """
    if x != out and overlap(x, size, out, size):
        raise ArgumentError("out overlaps x without being x; give x itself or separate memory.")
