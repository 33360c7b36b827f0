"""Fusion of whole networks: the same result in float64, few operations, and what can be computed outside the step is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast
from diffuse_fast.onnx import network as reader
from diffuse_fast.program import fuse as fusing
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse.attention import settle_scale
from diffuse_fast.program.lower import lower
from diffuse_fast.program.program import Attention, Convolution, Level, Linear, Norm
from diffuse_fast.program.reference import Reference

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from tests.program.families import FAMILIES, installed  # noqa: E402

DIGITS = Path(diffuse_fast.__file__).parent / "bundled" / "digits.onnx"
STEP = {
    "df.nn.UNet attention, classes": {Convolution: 20, Linear: 13, Attention: 4},
    "diffusers UNet2D": {Convolution: 20, Linear: 13, Attention: 4},
}


def evaluate(program, weights, inputs):
    x, t, *conditions = inputs
    return Reference(program, weights)(x, t, conditions)


def both(path, prime=997):
    """The program of a file before and after fusion."""
    draft = lower(reader.read(path), prime)
    return finish(draft), finish(fusing.fuse(draft))


def weights_of(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def same(path, inputs, monkeypatch):
    """Check that fusion changes no result by more than rounding in float64."""
    monkeypatch.setattr(
        fusing, "PASSES", tuple(one for one in fusing.PASSES if one[0] is not settle_scale)
    )  # it mends a rounded scale
    before, after = both(path)
    weights = weights_of(path)
    expected, found = evaluate(before, weights, inputs), evaluate(after, weights, inputs)
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()
    return after


def check_levels(program):
    """Check that each operation runs at the lowest level that its inputs allow; a part of a concatenation, at that of the whole."""
    outputs = [op.output.buffer for op in program.operations]
    for op in program.operations:
        level = Level.CONSTANT
        for view in op.reads:
            level |= program.buffers[view.buffer].level
        written = program.buffers[op.output.buffer].level.stage
        assert written == level.stage or outputs.count(op.output.buffer) > 1, op.source


def count(program, level=Level.SAMPLE):
    found = {}
    for op in program.at(level):
        found[type(op.kind)] = found.get(type(op.kind), 0) + 1
    return found


def test_the_bundled_digits(monkeypatch):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(3, 1, 8, 8)), np.array([3.0, 500.0, 3.0]), np.array([0.0, 7.0, 10.0])
    program = same(DIGITS, inputs, monkeypatch)
    check_levels(program)
    assert count(program) == {Convolution: 28, Linear: 9, Attention: 1}
    (projections,) = program.at(Level.TIME | Level.CONDITION)
    assert projections.kind == Linear(12)  # one per residual block
    for op in program.at(Level.SAMPLE):
        assert not any(isinstance(stage, Norm) for stage in op.prologue[1:])  # a norm is of the input as it is stored


def test_another_prime_and_another_run_give_the_same_program():
    words = [encode(both(DIGITS, prime)[1]) for prime in (997, 1009, 997)]
    assert (words[0] == words[1]).all()
    assert (words[0] == words[2]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "df.nn.UNet3D"])
def test_families(name, tmp_path, monkeypatch):
    family = FAMILIES[name]
    if not installed(family):
        pytest.skip(f"{', '.join(family.packages)} is not installed.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = family.export(tmp_path / "network.onnx", 23)
    inputs = [one.numpy().astype(np.float64) for one in family.inputs(3)]
    program = same(path, inputs, monkeypatch)
    check_levels(program)
    if name in STEP:
        assert count(program) == STEP[name]
