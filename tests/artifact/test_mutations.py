"""A thousand damaged artifacts: each loads or is refused with a typed error, and what loads reads as onnx reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx import header

onnx = pytest.importorskip("onnx")

COUNT = 250  # of each kind


@pytest.fixture(scope="module")
def exact():
    """Whether a file's outside, as we read it, is what onnx reads."""
    message = pytest.importorskip("google.protobuf.message")

    def compare(path):
        ours = header.read(path)
        try:
            theirs = onnx.load_model_from_string(path.read_bytes())
        except message.DecodeError:
            return  # damage where we do not look; the runtime will
        initialized = {t.name for t in theirs.graph.initializer}
        assert [v.name for v in ours.inputs] == [v.name for v in theirs.graph.input if v.name not in initialized]
        assert [v.name for v in ours.outputs] == [v.name for v in theirs.graph.output]
        assert ours.metadata == {p.key: p.value for p in theirs.metadata_props}
        for a, b in zip(ours.inputs, (v for v in theirs.graph.input if v.name not in initialized), strict=True):
            dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in b.type.tensor_type.shape.dim]
            assert list(a.shape or ()) == [d if isinstance(d, str) or d >= 0 else "" for d in dims]

    return compare


def bits(rng, data):
    out = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    return bytes(out)


def cuts(rng, data):
    first, second = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:first] if rng.integers(2) else data[:first] + data[second:]


def splices(rng, data):
    start, stop = sorted(rng.integers(0, len(data) + 1, 2))
    at = rng.integers(len(data) + 1)
    piece = data[start:stop] if rng.integers(2) else rng.bytes(int(rng.integers(1, 40)))
    return data[:at] + piece + data[at + (0 if rng.integers(2) else len(piece)) :]


JUNK = [None, True, -1, 0, 1, 7, 1.5, 1e308, 10**40, "", "x", "t", "label", "float32", "\ud800", [], [1], [-1, 1], [2, 3], [[]], {},
        {"type": "cosine"}, [{}], "null", [None], ["a"] * 1000]  # fmt: skip


def fields(rng, data):
    """Change places of the document, as a careless or hostile author would."""
    model = onnx.load_model_from_string(data)
    entry = next(p for p in model.metadata_props if p.key == "diffuse_fast")
    document = json.loads(entry.value)
    for _ in range(rng.integers(1, 4)):
        where = document
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(where[key], dict | list) and where[key] and rng.integers(3):
                where = where[key]
                continue
            action = rng.integers(4)
            if action == 0:
                del where[key]
            elif action == 1 and isinstance(where, dict):
                where[f"{key}_"] = where[key]
            else:
                where[key] = JUNK[rng.integers(len(JUNK))]
            break
    entry.value = json.dumps(document)
    return model.SerializeToString()


@pytest.mark.parametrize("mutate", [bits, cuts, splices, fields])
def test_mutated_artifacts(small, tmp_path, exact, mutate):
    data = small().read_bytes()
    path = tmp_path / "mutant.onnx"
    loaded = refused = 0
    for seed in range(COUNT):
        path.write_bytes(mutate(np.random.default_rng([seed, len(mutate.__name__)]), data))
        try:
            model = df.load(path)
        except ArtifactError:
            refused += 1
        else:
            loaded += 1
            assert model.schedule is not None and model.shape
            exact(path)
    assert loaded + refused == COUNT and refused > COUNT // 3
