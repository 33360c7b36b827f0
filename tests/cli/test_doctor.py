"""``diffuse-fast doctor``: its JSON, what it says is chosen, and its warnings."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.kernels import get_kernel, kernels, num_threads
from diffuse_fast.runtimes.registry import select

TEXT = {"type": "string"}
MAYBE = {"type": ["string", "null"]}


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def many(items, least=1):
    return {"type": "array", "items": items, "minItems": least}


SCHEMA = record(
    diffuse_fast=record(version=TEXT, core=TEXT, noise_version={"type": "integer"}),
    python=TEXT,
    system=TEXT,
    cpu=record(
        machine=TEXT, cores={"type": "integer", "minimum": 1}, name=MAYBE, instructions={"type": ["array", "null"], "items": TEXT}
    ),
    packages={"type": "object", "additionalProperties": MAYBE, "required": ["numpy", "onnxruntime", "onnxruntime-gpu", "torch"]},
    kernels=many(record(name=TEXT, device={"enum": ["cpu", "cuda"]}, available={"type": "boolean"}, reason=MAYBE)),
    kernel=record(name=MAYBE, why=TEXT, forced=MAYBE),
    cuda=record(available={"type": "boolean"}, reason=MAYBE, module=many(TEXT, least=0), artifact=many(TEXT, least=0)),
    runtimes=many(
        record(name=TEXT, runs=many(TEXT), precisions=many(TEXT), package=MAYBE, installed={"type": "boolean"}, install=MAYBE)
    ),
    auto_runtime={"type": "object", "additionalProperties": MAYBE, "required": ["artifact", "session", "module", "callable"]},
    tuned=record(folder=MAYBE, answers={"type": "array"}),
    threads=record(step={"type": "integer", "minimum": 1}, why=TEXT, network=TEXT),
    warnings=many(TEXT, least=0),
)


@pytest.fixture
def doctor(run, monkeypatch):
    """The report as ``--json`` gives it, held to the schema."""
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.delenv("DIFFUSE_FAST_KERNEL", raising=False)

    def report():
        result = run("doctor", "--json")
        assert result.exit_code == 0, result.stderr
        out = json.loads(result.stdout)
        jsonschema.validate(out, SCHEMA)
        return out

    return report


def test_it_says_what_is_chosen(doctor):
    report = doctor()
    assert report["diffuse_fast"]["version"] == df.__version__
    assert report["kernel"]["name"] == get_kernel().name
    assert report["kernel"]["forced"] is None
    assert [(k["name"], k["reason"]) for k in report["kernels"]] == [(k.name, k.unavailable) for k in kernels()]
    assert all(k["available"] == (k["reason"] is None) for k in report["kernels"])
    assert report["threads"]["step"] == num_threads()
    assert report["auto_runtime"]["callable"] == select(lambda x, t: x).name == "callable"
    assert report["packages"]["numpy"] == __import__("numpy").__version__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells its CPU's instruction sets in a file")
def test_a_kernel_that_runs_has_its_instructions(doctor):
    report = doctor()
    needs = {"avx512": {"avx512f", "avx512bw"}, "avx2": {"avx2", "fma"}, "neon": {"asimd"}}
    for kernel in report["kernels"]:
        if kernel["available"]:
            assert needs.get(kernel["name"], set()) <= set(report["cpu"]["instructions"] or ())


@pytest.mark.parametrize("name", ["reference", "scalar"])
def test_a_forced_kernel_is_said(doctor, monkeypatch, name):
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", name)
    assert doctor()["kernel"] == {"name": name, "why": f"DIFFUSE_FAST_KERNEL={name}", "forced": name}


@pytest.mark.parametrize("name", ["avx3", "triton"])
def test_a_forced_kernel_that_cannot_run_is_a_warning(doctor, run, monkeypatch, name):
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", name)
    report = doctor()
    assert report["kernel"]["name"] is None
    assert any(name in warning for warning in report["warnings"])
    assert "warning: " in run("doctor").stderr


def test_two_onnxruntimes_are_a_warning(doctor, tmp_path, monkeypatch):
    site = tmp_path / "site"
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = site / f"{name.replace('-', '_')}-1.99.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99.0\n")
    monkeypatch.syspath_prepend(site)
    report = doctor()
    assert report["packages"]["onnxruntime-gpu"] == "1.99.0"
    assert any("both" in warning for warning in report["warnings"])


def test_a_missing_runtime_comes_with_its_extra(doctor, run, monkeypatch):
    find, missing = importlib.util.find_spec, ("onnxruntime", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    report = doctor()
    assert report["auto_runtime"]["artifact"] == "native"  # needs no package
    onnx = next(r for r in report["runtimes"] if r["name"] == "onnx")
    assert (onnx["installed"], onnx["install"]) == (False, "pip install '.[cpu]' in the checkout of diffuse_fast")
    assert "pip install '.[cpu]'" in run("doctor").stdout


def test_text(run, monkeypatch):
    monkeypatch.delenv("DIFFUSE_FAST_KERNEL", raising=False)
    result = run("doctor")
    assert result.exit_code == 0
    for part in (f"step kernel: {get_kernel().name}", "noise version", _core.cuda_unavailable_reason() or "cuda", "callable"):
        assert part in result.stdout


def test_it_imports_no_runtime():
    code = """
import sys
from diffuse_fast.cli.doctor import examine
examine()
print([m for m in ("torch", "onnxruntime", "onnx", "triton", "openvino", "MNN") if m in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280).stdout == "[]\n"


def test_of_a_model_it_says_whether_the_native_runtime_runs_it(run, small, tmp_path):
    onnx = pytest.importorskip("onnx")
    assert json.loads(run("doctor", "digits", "--json").stdout)["native"]["lowers"]
    shown = run("doctor", "digits").stdout
    assert "native runtime: digits" in shown and "against float64" in shown

    proto = onnx.load(small())  # a file of others does not describe itself
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    native = json.loads(run("doctor", "foreign.onnx", "--json").stdout)["native"]
    assert native["lowers"] and native["model"] == "foreign.onnx"
    assert native["measured"]["times"] == [0.0, 249.0, 499.0, 749.0, 999.0]
    assert max(native["measured"]["errors"]["float32-fast"]) < 1e-6

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert not json.loads(run("doctor", "broken.onnx", "--json").stdout)["native"]["lowers"]
    missing = run("doctor", "missing.onnx")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "missing.onnx" in missing.stderr
