"""A model is all its files: a network is made of those that were checked, or of none."""

from __future__ import annotations

import os

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.sample import load_cached
from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx import protobuf
from diffuse_fast.onnx.weights import Initializers
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "native": "numpy"}


@pytest.fixture(params=["one file", "weights beside"])
def written(request, small, tmp_path):
    """``written(add) -> path``: writes the small model with ``add`` added to its table; all are of one size."""
    where = {"one file": {}, "weights beside": {"save_as_external_data": True, "location": "w.bin", "size_threshold": 100}}

    def write(add=0.0):
        proto = onnx.load(small(name="source.onnx"))
        table = next(one for one in proto.graph.initializer if one.name == "table")
        table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table) + np.float32(add), "table"))
        path = tmp_path / f"with {add}" / "m.onnx"
        path.parent.mkdir()
        onnx.save_model(proto, path, **where[request.param])
        return path

    write.replaced = "m.onnx" if request.param == "one file" else "w.bin"
    return write


def replace(path, written):
    """Write other weights over those of a model, which keep size and time of modification."""
    target = path.with_name(written.replaced)
    before = target.stat()
    target.write_bytes(written(100.0).with_name(written.replaced).read_bytes())
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert target.stat().st_size == before.st_size


def called(model, runtime):
    call = network(model, runtime, threads=1).bind(1, (2, 3), {"label": np.zeros(1, int)})
    call.x[...] = 0
    return call(0.0)[0, 0, 0]


@pytest.mark.parametrize("runtime", PACKAGES)
def test_replaced_between_load_and_use(written, runtime):
    pytest.importorskip(PACKAGES[runtime])
    path = written()
    model = df.load(path)
    replace(path, written)
    with pytest.raises(ArtifactError, match=rf"{written.replaced}.*replaced or written to.*df\.load"):
        called(model, runtime)
    assert called(df.load(path), runtime) == 100


def test_replaced_while_a_session_is_kept(written):
    """The kept one is of the old files."""
    pytest.importorskip("onnxruntime")
    path = written()
    model = df.load(path)
    assert called(model, "onnx") == 0
    replace(path, written)
    with pytest.raises(ArtifactError, match="replaced or written to"):
        called(model, "onnx")


def test_a_path_is_loaded_again(written):
    path = written()
    first = load_cached(path)
    assert load_cached(path) is first
    replace(path, written)
    again = load_cached(path)
    assert again is not first and again.files.current and load_cached(path) is again


def test_sampling_by_path_takes_the_new_weights(written):
    pytest.importorskip("onnxruntime")
    path, given = written(), {"cond": {"label": 0}, "seed": 0, "clip": False, "runtime": "onnx"}
    before = df.sample(path, 1, 1, **given)
    replace(path, written)
    assert np.abs(df.sample(path, 1, 1, **given) - before).max() > 0.5


def test_the_digest_is_never_that_of_other_files(written):
    path = written()
    model = df.load(path)
    replace(path, written)
    with pytest.raises(ArtifactError, match="replaced or written to"):
        model.sha256  # noqa: B018


def test_replaced_while_it_is_loaded(small, monkeypatch):
    path = small()
    text = protobuf.WireReader.text

    def replacing(self, *rest):
        path.write_bytes(path.read_bytes())
        return text(self, *rest)

    monkeypatch.setattr(protobuf.WireReader, "text", replacing)
    with pytest.raises(ArtifactError, match="replaced or written to"):
        df.load(path)


def test_replaced_while_a_runtime_opens_it(written, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    path = written()
    model, made = df.load(path), ort.InferenceSession

    def session(*rest, **more):
        replace(path, written)
        return made(*rest, **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(ArtifactError, match="replaced or written to"):
        called(model, "onnx")


def test_replaced_while_the_core_reads_it(written, monkeypatch):
    path = written()
    model, read = df.load(path), Initializers.read

    def replace_then_read(self, name):
        replace(path, written)
        return read(self, name)

    monkeypatch.setattr(Initializers, "read", replace_then_read)
    with pytest.raises(ArtifactError, match="replaced or written to"):
        called(model, "native")


def test_links_of_a_hubs_cache(tmp_path, small):
    """Names lead to files of other names: no runtime finds the weights there, and the error says why."""
    proto, (blobs, snapshot) = onnx.load(small()), (tmp_path / "blobs", tmp_path / "snapshots" / "main")
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    onnx.save_model(proto, blobs / "model.onnx", save_as_external_data=True, location="model.bin", size_threshold=100)
    for name, digest in (("model.onnx", "0a1b"), ("model.bin", "2c3d")):
        (blobs / name).rename(blobs / digest)
        (snapshot / name).symlink_to(f"../../blobs/{digest}")
    with pytest.raises(ArtifactError, match=r"'model.bin' is beside the link.*blobs.*cp -rL.*local_dir"):
        df.load(snapshot / "model.onnx")
    for name in ("model.onnx", "model.bin"):  # as cp -rL does
        (tmp_path / name).write_bytes((snapshot / name).read_bytes())
    assert df.load(tmp_path / "model.onnx").external == (tmp_path / "model.bin",)
