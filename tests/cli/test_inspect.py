"""``diffuse-fast inspect``: what it says is what the file holds."""

from __future__ import annotations

import hashlib
import json

import pytest

import diffuse_fast as df
from diffuse_fast.program import program


def test_json_holds_document_graph_and_checksum(run, small, document):
    path = small(document)
    result = run("inspect", path, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    data = path.read_bytes()
    assert (report["bytes"], report["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert report["document"] == document
    assert report["opset"] == 21
    assert report["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["B", 2, 3]},
        {"name": "t", "dtype": "int64", "shape": ["B"]},
        {"name": "label", "dtype": "int64", "shape": ["B"]},
    ]
    assert report["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["B", 2, 3]}]


def test_text_says_what_matters(run):
    result = run("inspect", "digits")
    model = df.load("digits")
    assert result.exit_code == 0, result.stderr
    for part in ("[1, 8, 8]", model.sha256, "Apache-2.0", "v_prediction", "cosine", "label", "opset 23", "load_digits"):
        assert part in result.stdout


def test_other_files_are_refused(run, tmp_path, small):
    (tmp_path / "p.onnx").write_bytes(b"\x80\x04pickle")
    refused = run("inspect", "p.onnx")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "pickle" in refused.stderr
    assert "does not describe itself" in run("inspect", small(None)).stderr
    assert "digits" in run("inspect", "dijits").stderr


def test_the_size_is_that_of_all_files(run, small, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = small()
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = json.loads(run("inspect", path, "--json").stdout)
    assert report["external"] == ["weights.bin"]
    assert report["bytes"] == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert "with weights.bin" in run("inspect", path).stdout


def test_it_says_whether_the_native_runtime_runs_the_network(run, small):
    native = json.loads(run("inspect", "digits", "--json").stdout)["native"]
    assert native["lowers"] and native["kinds"]["attention"] == 1
    assert native["weight_bytes"] < df.load("digits").path.stat().st_size
    shown = run("inspect", "digits").stdout
    assert f"{native['weight_bytes']:,} bytes" in shown
    assert f"{sum(native['kinds'].values())} per call" in shown
    assert (native["program_version"], len(native["program"])) == (program.VERSION, 64) and native["program"] in shown
    table = native["algorithms"]["float32-fast"]
    assert (table["network.first.weight"], table["network.down.0.0.conv1.weight"]) == ("direct", "F(4,3)")
    assert f"on {native['instruction_set']}; convolutions: {list(table.values()).count('F(2,3)')} F(2,3), 11 F(4,3)" in shown
    memory = native["memory"]["float32"]
    assert memory["weights"] >= native["weight_bytes"] > memory["workspace"] > 0  # Winograd's weights are larger
    assert memory["activations"] < native["activation_bytes"] and f"{memory['activations']:,} of activations per sample" in shown
    assert native["measured"] is None and "not measured" in shown


def test_it_says_why_the_native_runtime_does_not_run_a_network(run, small):
    onnx = pytest.importorskip("onnx")
    path = small()
    proto = onnx.load(path)
    last = proto.graph.node[-1]
    between = onnx.helper.make_node("Det", [last.output[0]], ["strange"], name="the_node")
    last.output[0], between.input[0], between.output[0] = "before", "before", last.output[0]
    proto.graph.node.append(between)
    onnx.save(proto, path)
    native = json.loads(run("inspect", path, "--json").stdout)["native"]
    assert not native["lowers"]
    assert "Det" in native["why_not"] and "the_node" in native["why_not"]
    assert "the_node" in run("inspect", path).stdout
