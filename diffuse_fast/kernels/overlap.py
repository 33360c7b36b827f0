"""Which memory a kernel may write: memory that it does not read, or exactly what it reads, element on element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ArgumentError


class Memory(NamedTuple):
    """A contiguous array in memory: what the caller calls it, its address, and its sizes in bytes."""

    name: str
    address: int
    size: int
    item: int


def overlap(first: Memory, second: Memory) -> bool:
    """Whether two pieces of memory share bytes."""
    return first.address < second.address + second.size and second.address < first.address + first.size


def check_apart(written: Sequence[Memory], read: Sequence[Memory]) -> None:
    """Refuses memory that is written and shares bytes with other memory: an element would be read after it was overwritten.
    What is written may be exactly what is read, with elements of one size.

    Raises:
        ArgumentError: two arrays overlap; it names them.
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
    """:func:`check_apart` for a state alone: ``out`` is ``x`` or apart from it. Both are addresses of as many bytes."""
    check_apart([Memory("out", out, size, 1)], [Memory("x", x, size, 1)])


def check_step(out: Memory, read: Sequence[Memory], registers: Memory | None, count: int, write: int | None) -> None:
    """:func:`check_apart` for a step: ``registers`` holds ``count`` of them, and the row writes number ``write``."""
    banks = []
    if registers is not None:
        size = registers.size // count
        banks = [registers._replace(name=f"register {k}", address=registers.address + k * size, size=size) for k in range(count)]
    written = [out] if write is None else [out, banks[write]]
    check_apart(written, [*read, *(bank for k, bank in enumerate(banks) if k != write)])
