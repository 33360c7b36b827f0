"""The error of the native runtime on fixed inputs, and the layers that ``float32-fast`` must compute as ``float32``.

An error is the largest difference of a call's output to the reference, relative to the reference's largest output. The reference is
the program in float64 (:mod:`diffuse_fast.program.reference`). For a network of more than 8 G multiply-adds, which would take it
minutes, the reference is the core in ``float32``, whose error is far below the limit.

**The rule.** If a call in ``float32-fast`` has an error above :data:`LIMIT`, layers go from F(4,3) to F(2,3). Errors of layers are
nearly independent, so their squares add up. Each layer is measured alone; those that add most to the error go, as many as leave a
predicted error below 0.8 of the limit. If the measured one is still above the limit, twice as many go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import _core
from ...artifact.document import Document, Native
from ...onnx import header
from ...onnx.weights import Initializers
from ...program.identity import layer_name, program_hash
from ...program.program import VERSION, Convolution, Level, Linear, Program
from ...program.reference import Reference
from .bits import algorithms, instruction_set
from .loading import load

LEVELS = 5
LIMIT = 3e-5
MARGIN = 0.8
MAX_REFERENCE = 8e9  # multiply-adds per sample


@dataclass(frozen=True, slots=True)
class Inputs:
    """One call of a network for each noise level, as a batch.

    Attributes:
        x: (5, *shape of a sample).
        t: (5, *shape of the time).
        conditions: For each conditioning input (5, *its shape).
    """

    x: np.ndarray
    t: np.ndarray
    conditions: tuple[np.ndarray, ...]


def inputs_of(document: Document, program: Program) -> Inputs:
    """Noised data at five noise levels, evenly spaced over the times of the schedule.

    The data are Gaussian noise of deviation 0.5, which is that of images in [-1, 1]. Labels are random classes.
    """
    schedule = document.schedule
    assert schedule is not None
    levels = np.linspace(schedule.t_min, schedule.t_max, LEVELS)
    levels = np.floor(levels) if document.time.dtype != "float32" else levels
    rng = np.random.default_rng(0)
    size = (LEVELS, *document.shape)
    column = (LEVELS, *[1] * len(document.shape))
    alpha, sigma = (np.asarray(f(levels)).reshape(column) for f in (schedule.alpha, schedule.sigma))
    x = alpha * 0.5 * rng.standard_normal(size) + sigma * rng.standard_normal(size)
    x = x / alpha if document.input_scale == "1/alpha" else x
    times = np.asarray(schedule.network_time(levels, document.time.convention))
    conditions = [_random(rng, c.shape, c.dtype, c.classes) for c in document.conditioning]
    return _as_float32(program, x, times, conditions)


def inputs_of_file(path: Path, program: Program) -> Inputs:
    """Inputs for a file without a document: Gaussian noise, times from 0 to 999 or 0.1 to 0.9 by their type, labels 0 and 1."""
    types = {value.name: value.dtype for value in header.read(path).inputs}
    sample, time, *others = program.inputs
    rng = np.random.default_rng(0)
    times = np.floor(np.linspace(0, 999, LEVELS)) if types[time.name].startswith("int") else np.linspace(0.1, 0.9, LEVELS)
    x = rng.standard_normal((LEVELS, *sample.shape))
    return _as_float32(program, x, times, [_random(rng, one.shape, types[one.name], None) for one in others])


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, classes: int | None) -> np.ndarray:
    size = (LEVELS, *shape)
    return rng.standard_normal(size) if dtype == "float32" else rng.integers(0, min(classes or 2, 1 << 24), size)


def _as_float32(program: Program, x: np.ndarray, times: np.ndarray, conditions: list[np.ndarray]) -> Inputs:
    shape = (LEVELS, *program.inputs[1].shape)
    return Inputs(x.astype(np.float32), times.astype(np.float32).reshape(shape), tuple(c.astype(np.float32) for c in conditions))


def measure(program: Program, path: Path, inputs: Inputs) -> Native:
    """Measure both precisions, and apply the rule.

    Raises:
        ArtifactError: as :func:`.loading.load`.
    """
    sizes = {b.initializer: b.size for b in program.buffers if b.initializer is not None}
    with Initializers(path, sizes) as initializers:
        values = {name: initializers.read(name) for name in sizes}
    measurement = _Measurement(program, values, inputs)
    layers = measurement.float32_layers()
    errors = {"float32": measurement.errors("float32"), "float32-fast": measurement.errors("float32-fast", layers)}
    return Native(
        program_version=VERSION,
        program=program_hash(program),
        reference=measurement.reference,
        times=tuple(float(t) for t in inputs.t.reshape(-1)),
        errors={precision: tuple(float(f"{e:.2g}") for e in found) for precision, found in errors.items()},
        float32_layers=layers,
    )


class _Measurement:
    def __init__(self, program: Program, values: dict[str, np.ndarray], inputs: Inputs):
        self._program, self._values, self._inputs = program, values, inputs
        self._isa = instruction_set()
        large = multiply_adds(program) > MAX_REFERENCE
        self.reference = "float32" if large else "float64"
        if large:
            self._expected = self._outputs("float32", ())
        else:
            self._expected = Reference(program, values)(inputs.x, inputs.t, inputs.conditions).reshape(LEVELS, -1)

    def errors(self, precision: str, as_float32: Sequence[str] = ()) -> np.ndarray:
        """The error of each call."""
        difference = np.abs(self._outputs(precision, as_float32) - self._expected).max(1)
        return difference / np.maximum(np.abs(self._expected).max(1), np.finfo(np.float32).tiny)

    def float32_layers(self) -> tuple[str, ...]:
        """The layers that the rule takes back to ``float32``, in the order of the program."""
        if not self.errors("float32-fast").max() > LIMIT:
            return ()
        layers = self._fast_layers()
        least = self._square(layers)
        added = {one: max(self._square([n for n in layers if n != one]) - least, 0.0) for one in layers}
        worst = sorted(layers, key=lambda name: -added[name])
        rest = least + np.cumsum([added[name] for name in reversed(worst)])[::-1]  # predicted if the layers before one go
        count = max(1, int((rest > (MARGIN * LIMIT) ** 2).sum()))
        while count < len(worst) and self._square(worst[:count]) > LIMIT**2:
            count *= 2
        gone = set(worst[:count])
        return tuple(name for name in layers if name in gone)

    def _square(self, as_float32: Sequence[str]) -> float:
        """The square of the largest error in ``float32-fast``."""
        return float(self.errors("float32-fast", as_float32).max()) ** 2

    def _fast_layers(self) -> list[str]:
        found = algorithms(self._program, "float32-fast")
        return list(dict.fromkeys(layer_name(self._program, i) for i, name in found.items() if name == "F(4,3)"))

    def _outputs(self, precision: str, as_float32: Sequence[str]) -> np.ndarray:
        core = load(self._program, self._values, self._isa, precision, as_float32)
        return evaluate(core, self._inputs)


def evaluate(core: _core.Network, inputs: Inputs) -> np.ndarray:
    """The outputs of a network, (5, elements of one)."""
    y = np.empty((LEVELS, core.output_size), np.float32)
    core.run(inputs.x, y, core.prepare_times(inputs.t), core.prepare_conditions(list(inputs.conditions), LEVELS))
    return y


def multiply_adds(program: Program) -> int:
    """Multiply-adds of the convolutions and linears of one sample."""
    total = 0
    for op in program.at(Level.SAMPLE):
        if isinstance(op.kind, Convolution):
            count = op.inputs[0] if op.kind.transposed else op.output
            total += math.prod(count.shape) * math.prod(op.inputs[1].shape[1:])
        elif isinstance(op.kind, Linear):
            total += math.prod(op.output.shape) * op.inputs[0].shape[-1]
    return total
