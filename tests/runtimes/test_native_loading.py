"""Loading a network into the core: weights are read one at a time, checked, and refused where they do not fit."""

from __future__ import annotations

import os
import weakref

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.errors import ArtifactError, MemoryLimitError
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.lower import lower_file, lower_model
from diffuse_fast.runtimes import native, network
from diffuse_fast.runtimes.native import loading

onnx = pytest.importorskip("onnx")
helper = onnx.helper

ISA = native.instruction_set()
WIDTH, LAYERS = 64, 6


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    return {f"w{i}": (rng.normal(size=(WIDTH, WIDTH)) / 8).astype(np.float32) for i in range(LAYERS)}


@pytest.fixture
def saved(tmp_path, weights):
    """``saved(form, **changed) -> path``: x @ w0 @ ... + t, with weights in one of the forms that a file may have."""

    def save(form="raw", **changed):
        names = ["x", *(f"h{i}" for i in range(LAYERS))]
        nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(LAYERS)]
        nodes.append(helper.make_node("Add", [names[-1], "t"], ["y"]))
        floats = [onnx.helper.make_tensor_value_info(n, 1, ["n", k]) for n, k in (("x", WIDTH), ("t", 1), ("y", WIDTH))]
        tensors = []
        for name, value in {**weights, **changed}.items():
            if form == "numbers":
                tensors.append(helper.make_tensor(name, 1, value.shape, value.ravel()))
            else:
                tensors.append(onnx.numpy_helper.from_array(value, name))
        graph = helper.make_graph(nodes, "g", floats[:2], floats[2:], tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        path = tmp_path / "m.onnx"
        outside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 100} if form == "beside" else {}
        onnx.save_model(proto, path, **outside)
        return path

    return save


@pytest.mark.parametrize("form", ["raw", "numbers", "beside"])
def test_forms_of_weights(saved, weights, form):
    path = saved(form)
    program = lower_file(path)
    loaded = native.load(program, path, ISA)
    x, t = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32), np.float32([1, 2, 3])
    y = np.empty_like(x)
    loaded.run(x, y, loaded.prepare_times(t), loaded.prepare_conditions([], 3))
    expected = x.astype(np.float64)
    for weight in weights.values():
        expected = expected @ weight
    expected += t[:, None]
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()


def test_one_weight_at_a_time(saved, weights):
    """The core lets go of a weight before it asks for the next one."""
    program = lower_file(saved())
    given, asked, alive = [], [], []

    class Constants(loading._Constants):
        def __getitem__(self, index):
            array = super().__getitem__(index).copy()
            asked.append(index)
            alive.append(sum(one() is not None for one in given))
            given.append(weakref.ref(array))
            return array

    _core.Network(ISA, encode(program), Constants(program, weights.__getitem__))
    assert sorted(asked) == list(range(LAYERS)) and max(alive) == 0 and all(one() is None for one in given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(saved, weights, value):
    broken = weights["w3"].copy()
    broken[5, 7] = value
    path = saved(w3=broken)
    with pytest.raises(ArtifactError, match="'w3' holds NaN or Inf"):
        native.load(lower_file(path), path, ISA)


def test_weights_of_another_file(saved, weights):
    program = lower_file(saved())
    with pytest.raises(ArtifactError, match=f"'w2'.*does not hold {WIDTH * WIDTH} float32"):
        native.load(program, saved(w2=weights["w2"][:3]), ISA)
    with pytest.raises(ArtifactError, match=f"'w2'.*does not hold {WIDTH * WIDTH} float32"):
        native.load(program, saved(w2=weights["w2"].astype(np.float64)), ISA)
    path = saved()
    names = onnx.load(path)
    del names.graph.initializer[4]
    onnx.save_model(names, path)
    with pytest.raises(ArtifactError, match="has no initializer 'w4'"):
        native.load(program, path, ISA)


@pytest.mark.parametrize("form", ["raw", "beside"])
def test_truncated_while_it_is_loaded(saved, monkeypatch, form):
    path = saved(form)
    holder = path if form == "raw" else path.with_name("w.bin")
    program, read = lower_file(path), loading.Initializers.read

    def cut_then_read(self, name):
        os.truncate(holder, 1000)
        return read(self, name)

    monkeypatch.setattr(loading.Initializers, "read", cut_then_read)
    with pytest.raises(ArtifactError, match="was truncated while the initializer"):
        native.load(program, path, ISA)


def test_nothing_is_read_after_loading(saved):
    path = saved()
    loaded = native.load(lower_file(path), path, ISA)
    os.truncate(path, 0)
    x = np.ones((1, WIDTH), np.float32)
    y = np.full_like(x, np.nan)
    loaded.run(x, y, loaded.prepare_times(np.float32([0])), loaded.prepare_conditions([], 1))
    assert np.isfinite(y).all()


def test_memory_limit(monkeypatch):
    model = df.load("digits")
    words = encode(lower_model(model))
    weights, activations, workspace = _core.network_memory(ISA, words, "float32")
    assert weights > sum(b.size * 4 for b in lower_model(model).buffers if b.initializer) * 0.9
    assert 0 < workspace < 1 << 22 and 0 < activations < 1 << 22
    needed = weights + activations + workspace
    monkeypatch.setattr(loading, "free_memory", lambda: needed - 1)
    with pytest.raises(MemoryLimitError, match=rf"takes {needed / 1e6:.0f} MB .* can take {needed / 1e6:.0f} MB"):
        network(model, "native")
    for free in (needed, None):
        monkeypatch.setattr(loading, "free_memory", lambda free=free: free)
        assert network(model, "native").name == "native"
