"""Loading a model, mappings for foreign files, and pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import model as models
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, ArtifactNotFoundError


def test_a_model_is_shown_in_a_line():
    """A notebook shows what its last line gives: no plans, no training record."""
    model = df.load("digits")
    assert len(repr(model)) < 150 + len(str(model.path))
    for part in ("'digits'", "(1, 8, 8)", "v_prediction", "Schedule.cosine", "label", str(model.path)):
        assert part in repr(model)


def test_a_bundled_model_knows_itself():
    model = df.load("digits")
    assert model.path.is_file() and model.path.is_absolute()
    assert (model.name, model.shape, model.value_range, model.clip) == ("digits", (1, 8, 8), (-1.0, 1.0), (-1.0, 1.0))
    assert model.time.convention == "timestep" and isinstance(model.schedule, df.Schedule)
    (label,) = model.conditioning
    assert (label.name, label.null, label.classes) == ("label", 10, 10)
    assert model.license == "Apache-2.0"


def test_loading_needs_numpy_alone():
    code = """
import sys
sys.modules.update(torch=None, onnx=None, onnxruntime=None)  # an import of any of them fails
import diffuse_fast as df
print(df.load("digits").shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 8, 8)", done.stderr


def test_a_model_is_frozen_and_hashable(small):
    model = df.load(small())
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.shape = (1,)
    assert {model: 1}[model] == 1


def test_its_digest_is_that_of_the_file(small):
    path = small()
    model = df.load(path)
    path.rename(path.with_name("moved.onnx"))
    with pytest.raises(ArtifactNotFoundError):  # computed when asked for, not before
        _ = model.sha256
    moved = df.load(path.with_name("moved.onnx"))
    assert moved.sha256 == hashlib.sha256(moved.path.read_bytes()).hexdigest()


def test_links_to_a_model_are_followed_to_its_folder(small, tmp_path):
    path = small()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.onnx"
    link.symlink_to(path)
    assert df.load(link).path == path.resolve()


def test_an_unknown_name_gets_near_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactNotFoundError, match=r"'digit'.*Did you mean 'digits'"):
        df.load("digit")
    with pytest.raises(FileNotFoundError, match="no model file"):
        df.load("folder/digits.onnx")


@pytest.mark.parametrize("model", [None, 3, b"digits", ["digits"]])
def test_a_model_of_another_type_is_refused(model):
    with pytest.raises(ArgumentTypeError, match="model"):
        df.load(model)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, ""])
def test_a_path_that_cannot_be_used(name):
    with pytest.raises(ArtifactError):
        df.load(name)


# ---- mappings -----------------------------------------------------------------------------------

MAPPING = {"sample": "x", "time": "t"}


def test_a_file_without_a_document_says_what_it_has(small):
    with pytest.raises(ArtifactError, match=r"'x', 't', 'label'.*mapping="):
        df.load(small(None))


def test_a_mapping_with_the_names_alone(small):
    model = df.load(small(None), MAPPING)
    assert (model.shape, model.schedule, model.prediction_type, model.clip, model.value_range) == ((2, 3), None, None, None, None)
    assert (model.input, model.time.input, model.time.dtype, model.output) == ("x", "t", "int64", "output")
    assert model.conditioning == (models.Conditioning("label", "int64"),)
    assert (model.name, model.opset) == ("small", 21)


def test_a_mapping_with_everything(small):
    schedule = df.Schedule.cosine()
    mapping = {
        **MAPPING, "output": "output", "schedule": schedule, "prediction_type": "v_prediction", "shape": (2, 3), "clip": (-1, 1),
        "value_range": (0, 1), "convention": "timestep", "variance": "none", "name": "mine", "license": "MIT",
        "conditioning": {"label": {"null": 4, "classes": 4}},
    }  # fmt: skip
    model = df.load(small(None), mapping)
    assert model.schedule == schedule and model.prediction_type == "v_prediction" and model.clip == (-1.0, 1.0)
    assert model.conditioning == (models.Conditioning("label", "int64", (), 4, 4),)
    assert (model.name, model.license, model.value_range) == ("mine", "MIT", (0.0, 1.0))
    assert df.load(small(None), {**MAPPING, "schedule": schedule.to_json()}).schedule == schedule


def test_the_default_names_are_those_of_diffusers(tmp_path):
    onnx = pytest.importorskip("onnx")
    inputs = [onnx.helper.make_tensor_value_info(*v) for v in (("sample", 1, ["b", 4, 8, 8]), ("timestep", 7, []))]
    output = onnx.helper.make_tensor_value_info("out_sample", 1, ["b", 4, 8, 8])
    nodes = [onnx.helper.make_node("Identity", ["sample"], ["out_sample"])]
    path = tmp_path / "unet.onnx"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, [output])).SerializeToString())
    assert df.load(path, {}).shape == (4, 8, 8)


def test_a_shape_that_the_graph_leaves_open_is_said(small):
    path = small(None, x=(1, ["B", "H", "W"]), label=(7, ["B", "N"]))
    with pytest.raises(ArgumentError, match=r"mapping.*shape"):
        df.load(path, MAPPING)
    with pytest.raises(ArgumentError, match=r"'label'.*shape"):
        df.load(path, {**MAPPING, "shape": (2, 3)})
    model = df.load(path, {**MAPPING, "shape": (2, 3), "conditioning": {"label": {"shape": [7]}}})
    assert model.shape == (2, 3) and model.conditioning[0].shape == (7,)


@pytest.mark.parametrize(
    "mapping, error, says",
    [
        ({"sample": "x", "tiem": "t"}, ArgumentError, "'tiem'.*Did you mean 'time'"),
        ({"sample": "y", "time": "t"}, ArgumentError, "'sample'.*'y'"),
        ({"sample": "x"}, ArgumentError, "'time'.*'timestep'"),
        ({**MAPPING, "output": "eps"}, ArgumentError, "'output'.*'eps'"),
        ({**MAPPING, "prediction_type": "eps"}, ArgumentError, "prediction_type"),
        ({**MAPPING, "conditioning": {"text": {}}}, ArgumentError, "text"),
        ({**MAPPING, "conditioning": ["label"]}, ArgumentTypeError, "conditioning"),
        ({**MAPPING, "conditioning": {"label": {"nul": 1}}}, ArtifactError, "nul"),
        ({**MAPPING, "schedule": {"type": "straight"}}, ArtifactError, "schedule"),
        ({**MAPPING, "schedule": "linear"}, ArtifactError, "schedule"),
        ({**MAPPING, "clip": 1}, ArtifactError, "clip"),
        ({**MAPPING, "shape": (2, 4)}, ArtifactError, "shape"),
        ({**MAPPING, "sample": "t", "time": "x"}, ArtifactError, "sample"),
        ("x", ArgumentTypeError, "mapping"),
    ],
)
def test_a_mapping_that_cannot_be_used(small, mapping, error, says):
    with pytest.raises(error, match=says):
        df.load(small(None), mapping)


def test_a_mapping_for_a_file_that_describes_itself(small):
    with pytest.raises(ArgumentError, match="describes itself"):
        df.load(small(), MAPPING)


# ---- external data ------------------------------------------------------------------------------


def test_external_data_are_checked_and_counted_into_the_digest(small, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = small()
    proto = onnx.load(path)
    onnx.save_model(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = df.load(path)
    assert model.external == (tmp_path.resolve() / "w.bin",)
    before = model.sha256
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert df.load(path).sha256 != before
    (tmp_path / "w.bin").write_bytes(data[:5])
    with pytest.raises(ArtifactError, match=r"w\.bin.*truncated"):
        df.load(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        df.load(path)


# ---- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_256_levels_come_back(dtype):
    levels = np.arange(256)
    for lo, hi in ((-1.0, 1.0), (0.0, 1.0)):
        x = (lo + (hi - lo) * levels / 255).astype(dtype)
        assert df.to_uint8(x, (lo, hi)).dtype == np.uint8
        np.testing.assert_array_equal(df.to_uint8(x, (lo, hi)), levels)


def test_the_range_is_the_models_and_values_beyond_it_are_clipped(small):
    x = np.array([-7.0, -1.0, 1.0, 7.0, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(df.to_uint8(x, df.load(small())), [0, 0, 255, 255, 255, 0])


def test_tensors_stay_tensors():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 4, 5)).astype(np.float32)
    got = df.to_uint8(torch.from_numpy(x))
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got.numpy(), df.to_uint8(x))


def test_to_uint8_refuses_unknown_ranges_and_other_dtypes(small, document):
    document["sample"]["value_range"] = None
    with pytest.raises(ArgumentError, match="value range"):
        df.to_uint8(np.zeros(3), df.load(small(document)))
    with pytest.raises(ArgumentTypeError, match="int64"):
        df.to_uint8(np.zeros(3, np.int64))
    for bad in ((1, 1), (1, 0), (0, np.inf)):
        with pytest.raises(ArgumentError, match="value range"):
            df.to_uint8(np.zeros(3), bad)
    with pytest.raises(ArgumentTypeError, match="value range"):
        df.to_uint8(np.zeros(3), 7)
