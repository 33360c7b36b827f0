"""Another document in a model file: nothing else of the file changes, as onnx's own reader sees it."""

from __future__ import annotations

import json

import pytest

from diffuse_fast.artifact.write_document import rewrite
from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx import header

onnx = pytest.importorskip("onnx")


def props(proto):
    return {p.key: p.value for p in proto.metadata_props}


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_only_the_document_changes(small, document, tmp_path, length):
    source, target = small(document), tmp_path / "other.onnx"
    text = "ü" * (length // 2) + "x" * (length % 2)
    rewrite(source, target, text)
    before, after = onnx.load(source), onnx.load(target)
    assert props(after) == {**props(before), "diffuse_fast": text}
    for proto in (before, after):
        proto.ClearField("metadata_props")
    assert before.SerializeToString() == after.SerializeToString()
    assert header.read(target).metadata["diffuse_fast"] == text


def test_a_file_without_a_document_gets_one(small, tmp_path):
    source, target = small(None), tmp_path / "other.onnx"
    rewrite(source, target, "{}")
    assert target.read_bytes().startswith(source.read_bytes())
    assert props(onnx.load(target)) == {"diffuse_fast": "{}"}


def test_the_same_document_gives_the_same_bytes(small, document, tmp_path):
    source, target = small(document), tmp_path / "other.onnx"
    rewrite(source, target, json.dumps(document))
    assert target.read_bytes() == source.read_bytes()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ArtifactError, match="pickle"):
        rewrite(tmp_path / "no.onnx", tmp_path / "out.onnx", "{}")
    assert not (tmp_path / "out.onnx").exists()
