"""Networks in files with their results on this machine, for `tests/cpp/stored_networks.cpp`, which runs them under emulation.

    python -m tests.network.stored FOLDER

The networks are those of golden.py, random programs of every kind, functions on pairs of special values, and small members of the
families.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffuse_fast import _core
from diffuse_fast.onnx.weights import Initializers
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.lower import lower_file
from diffuse_fast.program.program import BINARY, Binary, Buffer, Convolution, Input, Level, Map, Operation, Program
from tests.network import golden, test_operations
from tests.network.programs import COND, KINDS, Maker, T, X, constants, dense
from tests.network.test_families import QUICK
from tests.program.families import FAMILIES

PRECISIONS = ("float32", "float32-fast")
SEEDS = 12
BATCH = 2
ISA = "scalar"


def weights_of(program: Program, path: Path) -> dict[str, np.ndarray]:
    """The initializers of a program, by name."""
    sizes = {b.initializer: b.size for b in program.buffers if b.initializer is not None}
    with Initializers(path, sizes) as file:
        return {name: np.array(file.read(name)) for name in sizes}


def networks(folder: Path) -> Iterator[tuple[str, Program, dict[str, np.ndarray], list[np.ndarray]]]:
    """Each network with its name, its weights and its inputs (x, t, *conditions)."""
    for name in golden.NETWORKS:
        program, path = golden.network(name, folder)
        x, t, conditions = golden.inputs(program)
        yield f"golden {name}", program, weights_of(program, path), [x, t, *conditions]
    for kind in KINDS:
        for seed in range(SEEDS):
            maker = Maker(seed)
            yield f"random {kind} {seed}", getattr(maker, kind)(), maker.weights, list(test_operations.inputs(seed, BATCH))
        for seed in range(4):
            maker = Maker(seed)
            x, *rest = test_operations.inputs(seed, BATCH)
            x[1, seed::97] = np.nan
            yield f"random {kind} {seed}, NaN", getattr(maker, kind)(), maker.weights, [x, *rest]
    for function in BINARY:
        yield f"pairs {function}", *pairs(function)
    for name in QUICK:
        path = folder / "family.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FAMILIES[name].export_by_tracing(path)
        program = lower_file(path)
        yield f"family {name}", program, weights_of(program, path), [one.numpy() for one in FAMILIES[name].inputs(BATCH)]


def pairs(function: str) -> tuple[Program, dict[str, np.ndarray], list[np.ndarray]]:
    """A function of two arguments on all pairs of special values and some others."""
    special = [0.0, 1.0, 2.0, 0.5, 3.0, 7.0, 16777217.0, 1e-40, 1.5e-38, 3e38, 0.1, 2.7, 88.0, np.inf]
    values = np.array([*special, *(-v for v in special), np.nan], np.float32)
    x, c = (one.reshape(1, -1) for one in (np.repeat(values, len(values)), np.tile(values, len(values))))
    shape = (len(values) ** 2,)
    y = dense(COND + 1, shape)
    operation = Operation(Map(), (dense(X, shape),), y, (Binary(function, dense(COND, shape)),))
    buffers = (Buffer(x.size), Buffer(1, Level.TIME), Buffer(c.size, Level.CONDITION), Buffer(math.prod(shape)))
    names = (Input("x", X, (x.size,)), Input("t", T, ()), Input("c", COND, (c.size,)))
    return Program(buffers, names, y, (operation,)), {}, [x, np.zeros(1, np.float32), c]


def write(path: Path, program: Program, weights: dict[str, np.ndarray], inputs: list[np.ndarray], precision: str) -> np.ndarray:
    """Write one network, and return its result."""
    words, given = encode(program), [np.ascontiguousarray(one, np.float32) for one in constants(program, weights)]
    rows = [np.ascontiguousarray(one, np.float32) for one in inputs]
    network = _core.Network(ISA, words, given, precision)
    y = np.empty((len(rows[0]), network.output_size), np.float32)
    network.run(rows[0], y, network.prepare_times(rows[1]), network.prepare_conditions(rows[2:], len(y)), 1)
    with path.open("wb") as file:

        def put(*numbers: int) -> None:
            file.write(np.array(numbers, "<i8").tobytes())

        put(PRECISIONS.index(precision), len(y), len(words), *words, len(given))
        for array in (*given, *rows, y):
            put(array.size)
            file.write(array.astype("<f4").tobytes())
    return y


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    stored = json.loads(golden.STORED.read_text(encoding="utf-8"))["networks"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, program, weights, inputs in networks(Path(scratch)):
            convolves = any(isinstance(op.kind, Convolution) for op in program.operations)
            for precision in PRECISIONS if convolves else PRECISIONS[:1]:
                y = write(folder / f"{name}, {precision}", program, weights, inputs, precision)
                if name.startswith("golden") and precision == "float32":
                    assert golden.digest(y) == stored[name.removeprefix("golden ")], name


if __name__ == "__main__":
    main()
