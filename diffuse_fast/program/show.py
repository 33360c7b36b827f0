"""A program as text, one line per operation."""

from __future__ import annotations

from collections.abc import Sequence

from .draft import Draft
from .program import (
    Attention,
    Buffer,
    Convolution,
    Kind,
    Level,
    Linear,
    Norm,
    Operation,
    Pool,
    Program,
    Reduce,
    Resize,
    Softmax,
    Stage,
    Unary,
    View,
)

_SIGNS = {
    "add": "+", "subtract": "-", "reverse_subtract": "rsub ", "multiply": "*", "divide": "/", "reverse_divide": "rdiv ",
    "power": "^", "maximum": "max ", "minimum": "min ",
}  # fmt: skip
_NORMS = {"standard": "norm", "rms": "rms", "l2": "l2"}


def show(program: Program | Draft) -> str:
    """Return one line per operation, under headings for the levels at which they run.

    A line is ``output = kind(inputs)``, the prologue between the name of the kind and its inputs, the epilogue behind::

        %7 16x8x8 = convolution 3x3 (norm:4 *w +w silu %3 8x8x8) +%5 +%3

    ``%7`` is a buffer, ``%7+64`` a part of it that begins at element 64, ``w`` a weight or constant and ``norm:4`` a norm with four
    groups. The batch of a draft shows as its prime.
    """
    printer = _Printer(program.buffers)
    lines = [f"inputs {', '.join(f'{one.name} %{one.buffer} {_size(one.shape)}' for one in program.inputs)}"]
    for level in (Level.CONSTANT, Level.TIME, Level.CONDITION, Level.TIME | Level.CONDITION, Level.SAMPLE):
        found = [op for op in program.operations if program.buffers[op.output.buffer].level.stage == level]
        if found:
            lines.append(f"{_level(level)}: {len(found)} operations")
            lines += [f"  {printer.operation(op)}" for op in found]
    if program.output is not None:
        lines.append(f"output {printer.view(program.output)}")
    return "\n".join(lines)


class _Printer:
    def __init__(self, buffers: Sequence[Buffer]):
        self._buffers = buffers

    def operation(self, op: Operation) -> str:
        x, *others = op.inputs
        inside = " ".join([*map(self._stage, op.prologue), self.view(x), *(self._operand(view) for view in others)])
        line = f"{self.view(op.output)} = {_kind(op.kind, op.inputs)} ({inside})"
        return " ".join([line, *map(self._stage, op.epilogue)])

    def view(self, view: View) -> str:
        return f"{self._name(view)} {_size(view.shape)}"

    def _operand(self, view: View) -> str:
        return self._name(view) if self._constant(view) else self.view(view)

    def _name(self, view: View) -> str:
        if self._constant(view):
            return "w"
        return f"%{view.buffer}+{view.offset}" if view.offset else f"%{view.buffer}"

    def _constant(self, view: View) -> bool:
        buffer = self._buffers[view.buffer]
        return buffer.initializer is not None or buffer.values is not None

    def _stage(self, stage: Stage) -> str:
        if isinstance(stage, Unary):
            return f"{stage.function}:{stage.parameter:g}" if stage.parameter else stage.function
        if isinstance(stage, Norm):
            return f"{_NORMS[stage.kind]}:{stage.groups}" if stage.groups > 1 else _NORMS[stage.kind]
        operand = self._name(stage.operand) if isinstance(stage.operand, View) else f"{stage.operand:.6g}"
        return f"{_SIGNS[stage.function]}{operand}"


def _kind(kind: Kind, inputs: Sequence[View]) -> str:
    name = type(kind).__name__.lower()
    if isinstance(kind, Convolution):
        words = ["transposed"] * kind.transposed + [name, _size(inputs[1].shape[2:])]
        words += [f"/{_size(kind.strides)}"] * (max(kind.strides) > 1)
        words += [f"dilated {_size(kind.dilations)}"] * (max(kind.dilations) > 1)
        return " ".join(words + [f"groups {kind.groups}"] * (kind.groups > 1))
    if isinstance(kind, Pool):
        return f"{kind.function} {name} {_size(kind.kernel)} /{_size(kind.strides)}"
    if isinstance(kind, Attention):
        return " ".join([name, f"{kind.scale:.4g}"] + ["causal"] * kind.causal + [f"cap {kind.softcap:g}"] * (kind.softcap > 0))
    if isinstance(kind, Linear):
        return f"{name} x{kind.parts}" if kind.parts > 1 else name
    if isinstance(kind, Reduce):
        return f"{kind.function} over {','.join(map(str, kind.axes))}"
    return f"{name} along {kind.axis}" if isinstance(kind, Softmax | Resize) else name


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _level(level: Level) -> str:
    return " and ".join(flag.name.lower() for flag in Level if flag in level and flag.name) or "constant"
