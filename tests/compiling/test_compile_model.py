"""The file of a compiled model, read by docs/compiled.md, and what cannot be compiled."""

from __future__ import annotations

import json
import math
import struct
import zlib

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.compiling.file_format import CompiledModel, write
from diffuse_fast.errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    ArtifactNotFoundError,
    OutputError,
    UnsupportedError,
)
from diffuse_fast.program.encoding import encode
from diffuse_fast.runtimes.native import program_of


def sections(data: bytes) -> list[bytes]:
    magic, order, version, size, count, checksum = struct.unpack_from("<8sIIQII", data)
    assert (magic, order, version, size, count) == (b"\x89DFP\r\n\x1a\n", 0x01020304, 1, len(data), 7)
    assert checksum == zlib.crc32(data[32:])
    out, end = [], 32 + 7 * 16
    for i in range(count):
        offset, length = struct.unpack_from("<QQ", data, 32 + 16 * i)
        assert offset == (end + 63) // 64 * 64 and data[end:offset] == bytes(offset - end)
        out.append(data[offset : offset + length])
        end = offset + length
    assert end == len(data)
    return out


def test_the_file_is_as_the_page_describes_it(small, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = small()
    model = df.load(path)
    assert df.compile_model(model, tmp_path / "small.dfp", 5, guidance_scale=2.0) == tmp_path / "small.dfp"
    description, about, words, exact, rows, times, constants = sections((tmp_path / "small.dfp").read_bytes())

    plan = model.plan("ddim", 5).with_guidance(2.0)
    at = struct.calcsize("<IIIIIfdIdd")
    assert struct.unpack_from("<IIIIIfdIdd", description) == (
        _core.NOISE_VERSION, 0, 0, 2, 5, np.float32(plan.initial_scale), 2.0, 1, -1.0, 1.0
    )  # fmt: skip
    assert struct.unpack_from("<I5sIqq", description, at) == (5, b"small", 2, 2, 3)
    at += struct.calcsize("<I5sIqq")
    assert description[at:] == struct.pack("<II5sIIIdq", 1, 5, b"label", 1, 0, 1, 4.0, 4)

    assert json.loads(about)["solver"] == "ddim" and json.loads(about)["model_sha256"] == model.sha256
    np.testing.assert_array_equal(np.frombuffer(words, "<i8"), encode(program_of(model)))
    assert exact == b""
    assert len(rows) == 164 * 5
    np.testing.assert_array_equal(np.frombuffer(rows, "<f4").reshape(5, 41)[:, 0], 2.0)  # g[0], the first member of a row
    np.testing.assert_array_equal(np.frombuffer(times, "<f4"), plan.timesteps)
    table = next(onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name == "table")
    assert table.astype("<f4").tobytes() in constants


def test_the_file_is_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        df.compile_model("digits", tmp_path / name, 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_weights_are_those_of_the_model_file(tmp_path):
    df.compile_model("digits", tmp_path / "digits.dfp", 20)
    assert abs((tmp_path / "digits.dfp").stat().st_size - df.load("digits").path.stat().st_size) < 50_000


def test_what_the_file_says_about_itself(small, tmp_path):
    options = {"guidance_scale": 3.0, "guidance_interval": (0.5, math.inf), "guidance_rescale": 0.5}
    model = df.load(small())
    df.compile_model(model, tmp_path / "small.dfp", 4, solver="heun", precision="float32-fast", **options)
    about = json.loads(sections((tmp_path / "small.dfp").read_bytes())[1])
    assert about["license"] == "Apache-2.0" and about["producer"].startswith("diffuse_fast ")
    assert (about["solver"], about["precision"]) == ("heun", "float32-fast")
    assert about["nfe"] == model.plan("heun", 4).nfe
    assert about["guidance_interval"] == [0.5, None] and about["guidance_rescale"] == 0.5


def test_a_plan_may_be_given(small, tmp_path):
    model = df.load(small())
    df.compile_model(model, tmp_path / "named.dfp", 4, solver="dpmpp_2m")
    df.compile_model(model, tmp_path / "given.dfp", solver=model.plan("dpmpp_2m", 4))
    assert (tmp_path / "named.dfp").read_bytes() == (tmp_path / "given.dfp").read_bytes()


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"seed": 1}, ArgumentTypeError, "seed is given to the library when it samples"),
    ({"step_noise": lambda i: None}, ArgumentTypeError, "a compiled model has no step_noise"),
    ({"runtime": "onnx"}, ArgumentTypeError, "a compiled model has no runtime"),
    ({"begin": 500}, ArgumentError, "begins in the middle of the schedule"),
    ({"timesteps": [900.5, 0], "steps": None}, ArgumentError, "900.5 is not an integer"),
    ({"precision": "bfloat16"}, ArgumentError, "bfloat16"),
    ({"guidance_scale": [1.0, 2.0]}, (ArgumentError, ArgumentTypeError), "scale"),
    ({"solver": "ddi"}, ArgumentError, "Did you mean 'ddim'"),
    ({"solver": 3, "steps": None}, ArgumentTypeError, "plan is a int"),
    ({"etta": 1.0}, ArgumentTypeError, "etta"),
])  # fmt: skip
def test_arguments_that_are_wrong(small, tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        df.compile_model(small(), tmp_path / "out.dfp", **{"steps": 4, **options})
    assert list(tmp_path.iterdir()) == [tmp_path / "small.onnx"]


def test_models_that_cannot_be_compiled(small, document, tmp_path):
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "out.dfp"
    out.write_text("before")
    with pytest.raises(ArgumentTypeError, match=r"model is a function; compile_model takes a model file.*df\.export"):
        df.compile_model(lambda x, t: x, out, 4)
    with pytest.raises(ArtifactNotFoundError, match="missing"):
        df.compile_model("missing.onnx", out, 4)
    document["conditioning"][0]["null"] = None
    with pytest.raises(ArgumentError, match="no null value for 'label'"):
        df.compile_model(small(document), out, 4, guidance_scale=2.0)
    with pytest.raises(OutputError, match="there is no folder"):
        df.compile_model(small(), tmp_path / "missing/out.dfp", 4)

    proto = onnx.load(small())
    proto.graph.node[-1].output[0] = "sum"
    proto.graph.node.append(onnx.helper.make_node("CumSum", ["sum", "axis"], ["output"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(1), "axis"))
    onnx.save(proto, tmp_path / "sum.onnx")
    with pytest.raises(UnsupportedError, match="CumSum"):
        df.compile_model(tmp_path / "sum.onnx", out, 4)

    proto = onnx.load(small())
    table = next(t for t in proto.graph.initializer if t.name == "table")
    table.CopyFrom(onnx.numpy_helper.from_array(np.full((5, 2, 3), np.nan, np.float32), "table"))
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(ArtifactError, match="'table' holds NaN"):
        df.compile_model(tmp_path / "nan.onnx", out, 4)
    assert out.read_text() == "before"


def test_nothing_is_left_behind_if_a_constant_cannot_be_read(small, tmp_path, monkeypatch):
    def broken(model: CompiledModel, file):
        class Constants:
            def __iter__(self):
                yield next(iter(model.constants))
                raise ArtifactError("the file was truncated.")

        write(CompiledModel(**{**vars(model), "constants": Constants()}), file)

    path = small()
    monkeypatch.setattr("diffuse_fast.compiling.write_compiled.write", broken)
    with pytest.raises(ArtifactError, match="truncated"):
        df.compile_model(path, tmp_path / "out.dfp", 4)
    assert list(tmp_path.iterdir()) == [path]
