"""The operations of a draft with an index of who reads and writes each buffer, kept up to date while passes change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..draft import Draft
from ..program import Attention, Binary, Buffer, Convolution, Level, Linear, Operation, Pool, Stage, View
from .route import Follow


class Graph:
    """A draft that passes change.

    An operation keeps its index for life: passes replace it or remove it, so the order stays one in which each operation reads only
    what was written before it. Operations of lower levels come first.

    Attributes:
        operations: The operations; None where one was removed.
        buffers: The buffers; passes may add some.
        output: The buffer of the result.
        touched: Indices of operations that changed, or whose neighbours did, since this was last cleared.
    """

    def __init__(self, draft: Draft):
        if draft.output is None:
            raise ValueError("the draft has no output")
        self.buffers: list[Buffer] = list(draft.buffers)
        self.operations: list[Operation | None] = []
        self.output = draft.output.buffer
        self.touched: set[int] = set()
        self._readers: list[dict[int, int]] = [{} for _ in self.buffers]  # how often each operation reads it
        self._writers: list[set[int]] = [set() for _ in self.buffers]
        for index, op in enumerate(sorted(draft.operations, key=lambda op: int(draft.buffers[op.output.buffer].level.stage))):
            self.operations.append(None)
            self.set(index, op)

    def __getitem__(self, index: int) -> Operation:
        op = self.operations[index]
        assert op is not None
        return op

    def set(self, index: int, op: Operation | None) -> None:
        """Replace an operation, or remove it."""
        old, self.operations[index] = self.operations[index], op
        if old is not None:
            for view in old.reads:
                readers = self._readers[view.buffer]
                if readers[index] == 1:
                    del readers[index]
                else:
                    readers[index] -= 1
                if len(readers) <= 1:  # the one that is left, or the writer, may now be fused
                    self.touched.update(readers, self._writers[view.buffer])
            self._writers[old.output.buffer].discard(index)
        if op is None:
            self.touched.discard(index)
            return
        self.touched.add(index)
        for view in op.reads:
            readers = self._readers[view.buffer]
            readers[index] = readers.get(index, 0) + 1
            self.touched.update(self._writers[view.buffer])
        self._writers[op.output.buffer].add(index)
        self.touched.update(self._readers[op.output.buffer])

    def add_buffer(self, size: int, level: Level) -> int:
        """Add a buffer and return its index."""
        self.buffers.append(Buffer(size, level))
        self._readers.append({})
        self._writers.append(set())
        return len(self.buffers) - 1

    def stage(self, index: int) -> Level:
        """The level at which an operation runs. Operations of different levels are never fused."""
        return self.buffers[self[index].output.buffer].level.stage

    def readers(self, buffer: int) -> list[int]:
        """The operations that read a buffer, in order."""
        return sorted(self._readers[buffer])

    def reads(self, buffer: int) -> int:
        """How often a buffer is read, the caller's read of the result included."""
        return sum(self._readers[buffer].values()) + (buffer == self.output)

    def writers(self, buffer: int) -> list[int]:
        """The operations that write a buffer, in order: several for a concatenation, none for inputs and weights."""
        return sorted(self._writers[buffer])

    def writer(self, buffer: int) -> int | None:
        """The one operation that writes a buffer; None if several do or none."""
        writers = self._writers[buffer]
        return next(iter(writers)) if len(writers) == 1 else None

    def private(self, view: View, reader: int) -> list[int]:
        """The operations that write the buffer of a view, if they run at the level of ``reader`` and nothing else reads it."""
        writers = self.writers(view.buffer)
        if self.reads(view.buffer) != 1 or any(self.stage(writer) != self.stage(reader) for writer in writers):
            return []
        return writers

    def redirect(self, follow: Mapping[int, Follow], drop: tuple[int, ...] = ()) -> bool:
        """Let all readers of some buffers read other views, and remove operations.

        Returns:
            Whether it was done: not if a channel dimension that an executor reads would not be dense any more.

        Raises:
            UnsupportedError: From ``follow``. Nothing was changed.
        """
        changed = {}
        for index in {index for buffer in follow for index in self._readers[buffer]}.difference(drop):
            op = self[index]
            changed[index] = move_reads(op, follow)
            if not stays_dense(op, changed[index]):
                return False
        for index in drop:
            self.set(index, None)
        for index in sorted(changed):
            self.set(index, changed[index])
        return True

    def move(self, buffer: int, follow: Follow, drop: tuple[int, ...] = ()) -> bool:
        """Store a buffer elsewhere: its writers write other views, its readers read them. Also remove operations.

        Returns, raises:
            As :meth:`redirect`.
        """
        outputs = {}
        for index in self.writers(buffer):
            old = self[index]
            outputs[index] = follow(old.output)
            if not stays_dense(old, replace(old, output=outputs[index])):
                return False
        if not self.redirect({buffer: follow}, drop):
            return False
        for index, output in outputs.items():
            self.set(index, replace(self[index], output=output))
        return True


def move_reads(op: Operation, follow: Mapping[int, Follow]) -> Operation:
    """Replace the views of some buffers that an operation reads."""

    def view(v: View) -> View:
        return follow[v.buffer](v) if v.buffer in follow else v

    def stage(s: Stage) -> Stage:
        return Binary(s.function, view(s.operand)) if isinstance(s, Binary) and isinstance(s.operand, View) else s

    return replace(
        op, inputs=tuple(map(view, op.inputs)), prologue=tuple(map(stage, op.prologue)), epilogue=tuple(map(stage, op.epilogue))
    )


def stays_dense(old: Operation, new: Operation) -> bool:
    """Whether the new form of an operation reads and writes channels as vectors wherever the old form does.

    Channels that are read must be neighbours in memory; those that are written, one stride apart.
    """
    dim = channels(old)
    if dim is None:
        return True
    if len(new.output.dims[dim]) > 1 >= len(old.output.dims[dim]):
        return False
    count = 3 if isinstance(old.kind, Attention) else 1
    return all(dense(n, dim) or not dense(o, dim) for o, n in zip(old.inputs[:count], new.inputs[:count], strict=True))


def channels(op: Operation) -> int | None:
    """The dimension, counted from the end, that executors treat as vectors."""
    if isinstance(op.kind, Convolution | Pool):
        return -len(op.kind.strides) - 1
    return -1 if isinstance(op.kind, Linear | Attention) else None


def dense(view: View, dim: int) -> bool:
    """Whether the elements of a dimension are neighbours in memory."""
    atoms = view.dims[dim]
    return not atoms or (len(atoms) == 1 and atoms[0][1] == 1)
