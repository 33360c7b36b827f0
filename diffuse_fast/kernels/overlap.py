"""Checks for overlapping memory. A kernel may write an array that it reads, element by element, but no part of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ArgumentError


class Memory(NamedTuple):
    """The memory of a contiguous array: its name for messages, its address, its size and the size of an element in bytes."""

    name: str
    address: int
    size: int
    item: int


def overlap(first: Memory, second: Memory) -> bool:
    """Whether the two share bytes."""
    return first.address < second.address + second.size and second.address < first.address + first.size


def check_no_overlap(written: Sequence[Memory], read: Sequence[Memory]) -> None:
    """Raise an error if an array that is written overlaps another one: an element would be read after it was overwritten.

    A written array may be one that is read: the same address, size and size of an element.

    Raises:
        ArgumentError: two arrays overlap; the message names them.
    """
    for i, target in enumerate(written):
        for source in read:
            if overlap(target, source) and target[1:] != source[1:]:
                name = source.name
                raise ArgumentError(f"{target.name} overlaps {name} without being {name}; give {name} itself or separate memory.")
        for other in written[i + 1 :]:
            if overlap(target, other):
                raise ArgumentError(f"{target.name} overlaps {other.name}, and both are written; give separate memory.")


def check_out(x: int, out: int, size: int) -> None:
    """:func:`check_no_overlap` for the state: ``x`` and ``out`` are addresses of ``size`` bytes."""
    check_no_overlap([Memory("out", out, size, 1)], [Memory("x", x, size, 1)])


def check_step(out: Memory, read: Sequence[Memory], registers: Memory | None, count: int, write: int | None) -> None:
    """:func:`check_no_overlap` for a step. ``registers``: the memory of ``count`` registers; the row writes number ``write``."""
    banks = []
    if registers is not None:
        size = registers.size // count
        banks = [registers._replace(name=f"register {k}", address=registers.address + k * size, size=size) for k in range(count)]
    written = [out] if write is None else [out, banks[write]]
    check_no_overlap(written, [*read, *(bank for k, bank in enumerate(banks) if k != write)])
