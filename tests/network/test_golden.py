"""The bits of float32: stored hashes, which change only with the version of programs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffuse_fast import _core
from diffuse_fast.program import program as definition
from diffuse_fast.program.encoding import KINDS
from diffuse_fast.program.reference import Reference
from diffuse_fast.runtimes.native import algorithms

golden = pytest.importorskip("tests.network.golden", reason="needs onnx and onnxruntime")

ISAS = [name for name, reason in _core.kernels() if reason is None]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", golden.NETWORKS)
def test_the_bits_are_those_of_the_version(tmp_path, name, isa):
    stored = json.loads(golden.STORED.read_text(encoding="utf-8"))
    assert stored["program_version"] == definition.VERSION, "record the hashes again: python -m tests.network.golden"
    program, path = golden.network(name, tmp_path)
    result = golden.result(program, path, isa)
    expected = Reference(program, golden.models.weights_of(path))(*golden.inputs(program)).reshape(result.shape)
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()
    assert golden.digest(result) == stored["networks"][name], (
        "float32 results changed: raise VERSION in diffuse_fast/program/program.py and csrc/network/program.cpp, say it in "
        "CHANGELOG.md, and run python -m tests.network.golden"
    )


def test_every_kind_and_algorithm_is_held(tmp_path):
    programs = [golden.network(name, tmp_path)[0] for name in golden.NETWORKS]
    assert {type(op.kind) for program in programs for op in program.operations} == set(KINDS)
    assert {name for program in programs for name in algorithms(program, "float32").values()} == {"direct", "F(2,3)"}
    norms = {s.kind for p in programs for op in p.operations for s in op.prologue if isinstance(s, definition.Norm)}
    assert norms == set(definition.NORMS)
