"""The document: every field missing, of a wrong type, or at odds with another or the graph is an error that names it."""

from __future__ import annotations

import copy
import json

import pytest

import diffuse_fast as df
from diffuse_fast.artifact import document as documents
from diffuse_fast.artifact import read_document
from diffuse_fast.errors import ArtifactError

FIELDS = [
    "format", "version", "name", "schedule", "prediction_type", "time", "sample", "input_scale", "variance", "clip",
    "conditioning", "training", "license", "producer", "opset", "time.input", "time.convention", "time.dtype", "sample.input",
    "sample.output", "sample.shape", "sample.dtype", "sample.value_range", "conditioning.0.name", "conditioning.0.dtype",
    "conditioning.0.shape", "conditioning.0.null", "conditioning.0.classes",
]  # fmt: skip


def parent(document, path):
    *parts, last = path.split(".")
    for part in parts:
        document = document[int(part)] if part.isdigit() else document[part]
    return document, last


def put(document, path, value):
    document = copy.deepcopy(document)
    where, last = parent(document, path)
    where[int(last) if last.isdigit() else last] = value
    return document


def test_both_ways(document):
    parsed = read_document.parse(json.dumps(document))
    assert parsed.to_json() == document
    assert parsed.schedule == df.Schedule.linear()
    assert parsed.shape == (2, 3) and parsed.clip == (-1.0, 1.0) and parsed.output_shape == (2, 3)
    assert parsed.conditioning == (documents.Conditioning("label", "int64", (), 4, 4),)
    assert read_document.parse(json.dumps({**document, "variance": "learned_range"})).output_shape == (4, 3)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(document, field):
    where, last = parent(document, field)
    del where[last]
    with pytest.raises(ArtifactError, match=last):
        read_document.parse(json.dumps(document))


@pytest.mark.parametrize("field", ["extra", "time.extra", "sample.extra", "conditioning.0.extra"])
def test_an_unknown_field_is_named(document, field):
    with pytest.raises(ArtifactError, match="extra"):
        read_document.parse(json.dumps(put(document, field, 1)))


NULLABLE = {"clip", "license", "sample.value_range", "conditioning.0.null", "conditioning.0.classes"}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, True, -7, 2.5, "nonsense", [], [[[]]], {}, {"a": 1}, [3, 1], 10**300])
def test_a_field_of_a_wrong_type_is_named(document, field, value):
    text = json.dumps(put(document, field, value))
    last = field.split(".")[-1]
    fine = (
        (value is None and field in NULLABLE)
        or (
            value == "nonsense"
            and field in {"name", "license", "producer", "time.input", "sample.input", "sample.output", "conditioning.0.name"}
        )
        or (field == "training" and isinstance(value, dict))
        or (field in {"conditioning", "conditioning.0.shape"} and value == [])
        or (field == "conditioning.0.null" and value == -7)
        or (field == "sample.shape" and value == [3, 1])
    )
    if fine:
        read_document.parse(text)
    else:
        with pytest.raises(ArtifactError, match=last):
            read_document.parse(text)


@pytest.mark.parametrize(
    "field, value",
    [
        ("format", "onnx"),
        ("version", 6),
        ("version", True),
        ("version", 1.0),
        ("prediction_type", "noise"),
        ("time.convention", "seconds"),
        ("time.dtype", "float64"),
        ("sample.dtype", "float16"),
        ("sample.shape", [0]),
        ("sample.shape", [1 << 35]),
        ("sample.shape", [1 << 20, 1 << 20]),
        ("sample.shape", [1] * 9),
        ("sample.value_range", [1, -1]),
        ("sample.value_range", [1]),
        ("input_scale", "sigma"),
        ("variance", "learnt"),
        ("clip", [0, 0]),
        ("clip", [-1, 0, 1]),
        ("clip", [-1, "1"]),
        ("conditioning.0.dtype", "complex64"),
        ("conditioning.0.classes", 0),
        ("conditioning.0.null", 0.5),
        ("conditioning.0.null", 1 << 63),
        ("schedule", {"type": "linear", "num_train_timesteps": 10**12, "beta_start": 1e-4, "beta_end": 0.02}),
        ("schedule", {"type": "straight"}),
        ("schedule", {"type": ["linear"]}),
        ("schedule", {"type": "from_betas", "betas": [[[[0.1]]]]}),
        ("opset", 0),
    ],
)
def test_a_senseless_value_is_named(document, field, value):
    with pytest.raises(ArtifactError, match=field.split(".")[-1]):
        read_document.parse(json.dumps(put(document, field, value)))


def test_fields_that_contradict_each_other(document):
    def refused(says, *changes):
        changed = document
        for field, value in changes:
            changed = put(changed, field, value)
        with pytest.raises(ArtifactError, match=says):
            read_document.parse(json.dumps(changed))

    refused("time.dtype", ("time.convention", "sigma"))
    refused("different names", ("time.input", "x"))
    refused("different names", ("conditioning.0.name", "t"))
    refused("classes", ("conditioning.0.shape", [3]))
    refused("classes", ("conditioning.0.dtype", "float32"))
    refused("null", ("conditioning.0.dtype", "bool"), ("conditioning.0.classes", None))
    refused("null", ("conditioning.0.dtype", "int32"), ("conditioning.0.null", 1 << 40))


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "[]", "null", "1", "{", '{"a": 1, "a": 2}', '{"version": NaN}', '{"a": Infinity}', "[" * 100_000,
     '{"format": "diffuse_fast.model", "version": 1' + "0" * 5000 + "}", '{"a":' * 50_000],
)  # fmt: skip
def test_invalid_documents_are_refused(text):
    with pytest.raises(ArtifactError):
        read_document.parse(text)


def test_a_huge_value_makes_a_short_message(document):
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    for value in ("x" * 1_000_000, list(range(100_000)), deep):
        with pytest.raises(ArtifactError) as caught:
            read_document.parse(json.dumps(put(document, "variance", value)))
        assert len(str(caught.value)) < 1000


# ---- against the graph --------------------------------------------------------------------------


def test_agrees_with_its_graph(small, document):
    assert df.load(small()).shape == (2, 3)


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("sample.input", "y", "sample.input.*'y'"),
        ("sample.output", "y", "sample.output.*'y'"),
        ("time.input", "time", "time.input.*'time'"),
        ("time.dtype", "float32", "time.dtype.*int64"),
        ("sample.shape", [2, 4], "sample.shape"),
        ("sample.shape", [2, 3, 1], "sample.shape"),
        ("variance", "learned", "variance"),
        ("conditioning", [], "inputs that .* do not name: 'label'"),
        ("conditioning.0.name", "klass", "'klass'"),
        ("conditioning.0.dtype", "int32", r"conditioning\['label'\].dtype"),
        ("conditioning.0", {"name": "label", "dtype": "int64", "shape": [2], "null": None, "classes": None}, "shape"),
        ("opset", 23, "opset.*21"),
    ],
)
def test_a_document_that_contradicts_its_graph(small, document, field, value, says):
    with pytest.raises(ArtifactError, match=says):
        df.load(small(put(document, field, value)))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"x": (1, [4, 2, 3])}, "fixes the batch of 'x' at 4"),
        ({"output": (1, [1, 2, 3])}, "fixes the batch of 'output' at 1"),
        ({"label": (7, [1])}, "fixes the batch of 'label'"),
        ({"x": (11, ["B", 2, 3])}, "float64"),
        ({"output": (10, ["B", 2, 3])}, "float16"),
        ({"x": (1, None)}, "no known rank"),
        ({"output": (1, ["B", 4, 3])}, "sample.output.shape"),
        ({"t": (7, [4])}, "time.input"),
        ({"t": (7, ["B", 1])}, "time.input"),
        ({"spare": (1, ["B"])}, "do not name: 'spare'"),
    ],
)
def test_a_graph_that_contradicts_its_document(small, change, says):
    with pytest.raises(ArtifactError, match=says):
        df.load(small(**change))


@pytest.mark.parametrize("change", [{"x": (1, ["B", "H", "W"])}, {"t": (7, [])}, {"t": (7, [1])}, {"output": (1, [None, None, 3])}])
def test_a_graph_that_says_less_or_takes_one_time(small, change):
    assert df.load(small(**change)).shape == (2, 3)
