"""``df.quantize``: what it writes runs in int8, says what that costs, and is in float32 what it was."""

from __future__ import annotations

import copy
import dataclasses
import importlib

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact import document as documents
from diffuse_fast.artifact import read_document
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, OutputError
from diffuse_fast.onnx.graph import Graph, Node
from diffuse_fast.quantization import calibrate, sensitivity
from diffuse_fast.quantization.choose import candidates, choose, multiply_adds, values
from diffuse_fast.rewrites.insert_qdq import scale_and_zero_point

pytest.importorskip("onnxruntime")

FEW = {"samples": 2, "steps": 4, "max_error": 1.0}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    return df.quantize("digits", tmp_path_factory.mktemp("int8") / "digits.onnx", **FEW)


def test_float32_is_what_it_was(quantized):
    options = {"seed": 3, "cond": {"label": 7}, "runtime": "onnx"}
    np.testing.assert_array_equal(df.sample(quantized, 3, 4, **options), df.sample("digits", 3, 4, **options))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_int8_is_near_and_says_how_near(quantized, runtime):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    told = quantized.quantization.relative_error[runtime]
    x = calibrate.trajectories(quantized, 2, 4, 9, None)
    measured = calibrate.relative_error(quantized, runtime, x)
    assert 1e-3 < told < 0.2
    assert min(measured) > 1e-3 and float(np.median(measured)) < 3 * told  # of other samples: of the same kind
    fine = df.sample(quantized, 4, 10, seed=1, cond={"label": 3}, runtime="onnx")
    coarse = df.sample(quantized, 4, 10, seed=1, cond={"label": 3}, runtime=runtime, precision="int8")
    assert 0 < np.sqrt(np.mean((fine - coarse) ** 2)) < 0.1


def test_the_document_holds_it(quantized):
    found = quantized.quantization
    assert quantized.to_json()["version"] == 3
    assert read_document.build(quantized.to_json()).quantization == found == df.load(quantized.path).quantization
    assert len(found.layers) == 35 and found.frechet_distance is None
    assert not {"conv2d", "output"} & set(found.layers)  # the first and the last stay in float32,
    assert all(name.startswith("conv2d") for name in found.layers)  # and so do the linear layers, which embed the time
    without = df.load("digits").to_json()
    assert without["version"] < 3 and "quantization" not in without


def test_tune_takes_int8(quantized):
    tuning = df.tune(quantized, [2], precisions=["int8"], seconds=1e-3, max_error=0.3)
    assert tuning.best["int8"][2].precision == "int8"
    assert all(0 < c.error < 0.3 for c in tuning.candidates)
    with pytest.raises(ArgumentError, match="diffuse-fast quantize"):
        df.tune("digits", [1], precisions=["int8"], seconds=1e-3)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"layers": []}, "layers"), ({"layers": ["a", "a"]}, "different names"), ({"layers": "a"}, "layers"),
        ({"ranges": {"a": [1, 0]}}, "ranges.a"), ({"ranges": {"a": None}}, "ranges.a"),
        ({"relative_error": 0.1}, "relative_error"), ({"relative_error": {"onnx": "x"}}, "onnx"),
        ({"frechet_distance": {"float32": 1.0}}, "int8"), ({"calibration": None}, "calibration"), ({"more": 1}, "more"),
    ],
)  # fmt: skip
def test_invalid_quantizations_are_refused(quantized, change, says):
    document = copy.deepcopy(quantized.to_json())
    document["quantization"].update(change)
    with pytest.raises(ArtifactError, match=says):
        read_document.build(document)


def test_an_older_version_has_none(quantized):
    with pytest.raises(ArtifactError, match="unknown field 'quantization'"):
        read_document.build({**quantized.to_json(), "version": 2})


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"samples": 0}, ArgumentError, "samples"), ({"max_error": "small"}, ArgumentTypeError, "max_error"),
        ({"max_error": -1.0}, ArgumentError, "max_error"), ({"out": "digits.bin"}, ArgumentError, "onnx"),
        ({"out": "nowhere/digits.onnx"}, OutputError, "nowhere"), ({"out": None}, ArgumentTypeError, "out"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used(tmp_path, monkeypatch, options, error, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        df.quantize(**{"model": "digits", "out": "digits.onnx", **options})
    assert not list(tmp_path.iterdir())


def test_a_network_without_such_layers(small, tmp_path):
    with pytest.raises(ArgumentError, match="no layer"):
        df.quantize(small(), tmp_path / "out.onnx")


@pytest.fixture(scope="module")
def looked_at():
    """The digits model, some of its layers, their values, and three calls."""
    model = df.load("digits")
    nodes = candidates(model)[::6]
    return model, nodes, calibrate.calibrate(model, values(nodes), 2, 3, 0, None), calibrate.trajectories(model, 1, 3, 1, None)


def test_a_layer_alone_is_the_graph_with_its_input_rounded(looked_at):
    import onnxruntime

    model, nodes, seen, calls = looked_at
    found = sensitivity.errors_alone(model, nodes, seen.ranges, calls)
    assert list(found) == [node.outputs[0] for node in nodes]
    for node in nodes:
        graph, x = Graph(model.path), node.inputs[0]
        at = next(i for i, n in enumerate(graph.nodes) if n.outputs == node.outputs)
        scale, zero = scale_and_zero_point(seen.ranges[x])
        names = [graph.add_constant(x, np.float32(c)) for c in (scale, -float(zero), 255 - float(zero))]
        # Written down in float32: divide, round, clip, multiply.
        a, b, c, d = (graph.new_name(x) for _ in range(4))
        graph.nodes[at : at + 1] = [
            Node("Div", (x, names[0]), (a,)), Node("Round", (a,), (b,)), Node("Clip", (b, *names[1:]), (c,)),
            Node("Mul", (c, names[0]), (d,)), graph.rewired(node, (d, *node.inputs[1:]), node.outputs),
        ]  # fmt: skip
        session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
        errors = []
        for call in calls[1:]:  # the middle and the end
            inputs = {model.input: call.x, model.time.input: np.full(len(call.x), call.t, model.time.dtype), **call.cond}
            errors.append(np.linalg.norm(session.run(None, inputs)[0] - call.output) / np.linalg.norm(call.output))
        assert found[node.outputs[0]] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.02)


def test_the_work_of_a_layer(looked_at):
    """Multiply-adds as torch counts them: of a convolution, its weight at every place of its output."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    model, nodes, seen, _ = looked_at
    graph, found = Graph(model.path), multiply_adds(model, nodes, seen.sizes)
    for node in nodes:
        weight = torch.from_numpy(graph.weight(node.inputs[1]).copy())
        out, into = (int(np.sqrt(seen.sizes[name] // weight.shape[i])) for i, name in enumerate((node.outputs[0], node.inputs[0])))
        with FlopCounterMode(display=False) as counter:
            y = torch.nn.functional.conv2d(
                torch.zeros(1, weight.shape[1], into, into), weight, stride=into // out, padding=weight.shape[2] // 2
            )
        assert y.numel() == seen.sizes[node.outputs[0]]
        assert found[node.outputs[0]] == counter.get_total_flops() // 2


def test_layers_are_left_out_until_the_error_is_small(monkeypatch):
    """Of errors that add up in square those go first that are largest for the layer's work, no more than must, and a few trials
    tell how many."""
    model = df.load("digits")
    nodes = candidates(model)
    rng = np.random.default_rng(0)
    cost = {node.outputs[0]: float(c) for node, c in zip(nodes, rng.permutation(len(nodes)) + 1, strict=True)}
    work = {name: int(w) for name, w in zip(cost, rng.integers(1, 4, len(cost)), strict=True)}
    module = importlib.import_module("diffuse_fast.quantization.choose")
    tried = []

    def together(model, *_):  # the first layers hide a little of the error of the others
        tried.append(model.quantization.layers)
        return [np.sqrt(sum(cost[n] ** 2 for n in tried[-1])) * (1 - 0.002 * len(tried[-1]))]

    monkeypatch.setattr(module, "relative_error", together)
    monkeypatch.setattr(module, "errors_alone", lambda *_: cost)
    monkeypatch.setattr(module, "multiply_adds", lambda *_: work)
    seen = calibrate.Calibration(dict.fromkeys(module.values(nodes), (0.0, 1.0)), {})
    for limit in (0.5, 3.0, 20.0, 50.0, 100.0, 1e3):
        tried.clear()
        found = [n.outputs[0] for n in choose(model, nodes, seen, [None], "onnx", limit, lambda line: None)]
        assert len(tried) <= 7
        order = sorted(cost, key=lambda n: cost[n] ** 2 / work[n])
        fits = [k for k in range(len(order) + 1) if together(found_in(model, order[:k]))[0] <= limit]
        assert sorted(found) == sorted(order[: max(fits)])


def found_in(model, names):
    """The model with these layers in int8, as far as a document says it."""
    quantization = documents.Quantization(layers=tuple(names), ranges={}, relative_error={})
    return dataclasses.replace(model, quantization=quantization)


def test_a_weight_counts_as_so_many_numbers():
    rng = np.random.default_rng(0)
    numbers, times = rng.standard_t(4, 500).astype(np.float32), rng.integers(1, 5, 500)
    np.testing.assert_allclose(calibrate.best_range(numbers, times), calibrate.best_range(np.repeat(numbers, times)), rtol=1e-6)


def test_a_chosen_range_is_no_worse_than_the_full_one():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(4000)
    for numbers in (normal, np.append(normal, 40.0), -rng.exponential(size=4000), np.zeros(3)):
        low, high = calibrate.best_range(numbers)
        assert low < high and low <= 0 <= high

        def error(over, numbers=numbers):
            scale, zero = (float(v) for v in scale_and_zero_point(over))
            return np.mean(((np.clip(np.rint(numbers / scale) + zero, 0, 255) - zero) * scale - numbers) ** 2)

        assert error((low, high)) <= error((min(numbers.min(), 0.0), max(numbers.max(), 0.0))) + 1e-12


def test_the_ends_of_what_was_seen_count_as_single_numbers(monkeypatch):
    """Those picked stand for all numbers of a value; its least and its largest for themselves."""
    model, given = df.load("digits"), []
    monkeypatch.setattr(calibrate, "best_range", lambda numbers, weights: given.append((numbers, weights)) or (-1.0, 1.0))
    samples, steps = 3, 2
    seen = calibrate.calibrate(model, [model.input], samples, steps, 0, None)
    (numbers, weights), size = given[0], samples * seen.sizes[model.input]
    assert len(given) == 1 and size == samples * 64
    picked = calibrate.MAX_NUMBERS // steps
    assert len(weights) == steps * (picked + 2)
    for part, found in zip(weights.reshape(steps, -1), numbers.reshape(steps, -1), strict=True):
        np.testing.assert_allclose(part, [*np.ones(picked), picked / size, picked / size])
        assert (found.min(), found.max()) == (found[-2], found[-1])


def test_numbers_beyond_a_range_are_off_by_their_distance_to_it():
    numbers, over = np.array([-0.5, 1.7, 0.2], np.float32), (-0.25, 1.0)
    scale, zero = (float(v) for v in scale_and_zero_point(over))
    levels = np.clip(np.rint(numbers.astype(np.float64) / scale) + zero, 0, 255) - zero
    weights = np.array([1.0, 2.0, 3.0], np.float32)
    assert calibrate._error(numbers, weights, over) == pytest.approx(float(weights @ (levels * scale - numbers) ** 2), rel=1e-6)
