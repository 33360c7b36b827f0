"""The measured errors of the native runtime in the document."""

from __future__ import annotations

import json

import pytest

from diffuse_fast.artifact import read_document
from diffuse_fast.artifact.document import Native
from diffuse_fast.errors import ArtifactError


@pytest.fixture
def measured(document):
    document |= {"version": 5, "plans": [], "quantization": None}
    document["conditioning"][0]["class_names"] = None
    document["native"] = {
        "program_version": 1,
        "program": "ab" * 32,
        "reference": "float64",
        "times": [0.0, 999.0],
        "errors": {"float32": [1e-7, 2e-7], "float32-fast": [1e-6, 2e-6]},
        "float32_layers": ["down.weight"],
    }
    return document


def test_both_ways(measured):
    parsed = read_document.parse(json.dumps(measured))
    assert parsed.native == Native(
        program_version=1,
        program="ab" * 32,
        reference="float64",
        times=(0.0, 999.0),
        errors={"float32": (1e-7, 2e-7), "float32-fast": (1e-6, 2e-6)},
        float32_layers=("down.weight",),
    )
    assert parsed.to_json() == measured
    without = {**measured, "native": None}
    assert read_document.parse(json.dumps(without)).to_json()["version"] == 1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("program_version", 0, "integer"),
        ("program", "", "a string"),
        ("reference", "torch", "float64"),
        ("times", 3, "a list of numbers"),
        ("errors", {"float32": [1e-7]}, "one error for each of the 2 times"),
        ("errors", {"float32": [1e-7, -1.0]}, "one error for each of the 2 times"),
        ("errors", {"float32": [1e-7, None]}, "a list of numbers"),
        ("errors", [], "an object"),
        ("float32_layers", ["a", "a"], "different names"),
        ("float32_layers", [1], "names"),
        ("float32_layers", [""], "names"),
    ],
)
def test_a_senseless_value_is_named(measured, field, value, says):
    measured["native"][field] = value
    with pytest.raises(ArtifactError, match=rf"native\.{field}.*{says}"):
        read_document.parse(json.dumps(measured))


def test_version_4_has_no_such_field(measured):
    with pytest.raises(ArtifactError, match="native"):
        read_document.parse(json.dumps({**measured, "version": 4}))
