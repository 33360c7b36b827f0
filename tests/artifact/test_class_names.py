"""Names of classes: in the document, on the command line and in ``cond``."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact import read_document
from diffuse_fast.errors import ArgumentError, ArtifactError

NAMES = ["circles", "squares", "10", "0"]


@pytest.fixture
def named(document):
    document["version"], document["plans"], document["quantization"] = 4, [], None
    document["conditioning"][0]["class_names"] = NAMES
    return document


def test_both_ways(named, document):
    parsed = read_document.parse(json.dumps(named))
    assert parsed.conditioning[0].class_names == tuple(NAMES)
    assert parsed.to_json() == named
    unnamed = json.loads(json.dumps(named))
    unnamed["conditioning"][0]["class_names"] = None
    assert read_document.parse(json.dumps(unnamed)).to_json()["version"] == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [("circles", "a list of names"), ([1, 2, 3, 4], "a list of names"), (["", "b", "c", "d"], "a list of names"),
     (["a"], "one name for each of the 4 classes"), (["a", "b", "c", "a"], "different names")],
)  # fmt: skip
def test_names_that_are_none_are_refused(named, value, says):
    named["conditioning"][0]["class_names"] = value
    with pytest.raises(ArtifactError, match=rf"class_names.*{says}"):
        read_document.parse(json.dumps(named))


def test_the_field_is_of_version_4(named):
    without = [{k: v for k, v in named["conditioning"][0].items() if k != "class_names"}]
    for version, more in ((3, {}), (4, {"conditioning": without})):
        with pytest.raises(ArtifactError, match=r"class_names|quantization"):
            read_document.parse(json.dumps({**named, **more, "version": version}))


def test_classes_are_asked_for_by_name(named, small):
    model = df.load(small(named))

    def draw(label, n=2):
        return df.sample(model, n, 3, seed=0, cond={"label": label}, runtime="onnx")

    pytest.importorskip("onnxruntime")
    np.testing.assert_array_equal(draw("squares"), draw(1))
    np.testing.assert_array_equal(draw(["10", "circles"]), draw([2, 0]))
    np.testing.assert_array_equal(draw(["squares", 3]), draw([1, 3]))
    np.testing.assert_array_equal(draw("0"), draw(3))  # a text is a name, whatever it looks like
    with pytest.raises(ArgumentError, match=r"'square', which is not a class of the model.*'squares'"):
        draw("square")


def test_the_command_line_knows_the_names(named, small, tmp_path, monkeypatch):
    pytest.importorskip("typer")
    pytest.importorskip("onnxruntime")
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    monkeypatch.chdir(tmp_path)
    small(named)

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    def drawn(label):
        result = run("sample", "small.onnx", "-n", 2, "--steps", 3, "--seed", 0, "--cond", f"label={label}", "--out", "x.npy")
        assert result.exit_code == 0, result.stderr
        return np.load("x.npy")

    np.testing.assert_array_equal(drawn("squares"), drawn(1))
    np.testing.assert_array_equal(drawn("squares,circles"), drawn("1,circles"))
    expected = df.sample("small.onnx", 2, 3, seed=0, cond={"label": [3, 2]})
    np.testing.assert_array_equal(drawn("0,10"), expected)  # a name before a number
    refused = run("sample", "small.onnx", "--steps", 3, "--cond", "label=square")
    assert refused.exit_code == 2
    assert "or the name of a class: circles, squares" in " ".join(refused.stderr.replace("│", " ").split())
    shown = run("inspect", "small.onnx").stdout
    assert "squares" in shown and "classes of label" in shown
