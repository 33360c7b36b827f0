"""Which runtime runs what, and what is said where none does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

import diffuse_fast as df
from diffuse_fast import _core, machine, runtimes
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, MissingDependencyError, UnsupportedError
from diffuse_fast.runtimes.native import programs


def test_auto_by_kind_of_model(small):
    torch = pytest.importorskip("torch")
    ort = pytest.importorskip("onnxruntime")
    path = small()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for model, name in ((df.load(path), "native"), (session, "onnx"), (torch.nn.Identity(), "torch"), (lambda x, t: x, "callable")):
        assert runtimes.select(model).name == name
        assert runtimes.select(model, name).name == name
        assert runtimes.network(model).name == name


def test_auto_takes_what_has_the_precision(small):
    model = df.load(small())
    assert runtimes.select(model, precision="bfloat16").name == "openvino"
    assert runtimes.select(model, precision="float32-fast").name == "native"
    every = r"native: float32, float32-fast; onnx: float32, int8; openvino: float32, bfloat16, int8\)"
    with pytest.raises(ArgumentError, match=rf"'float16'.*{every}"):
        runtimes.select(model, precision="float16")
    with pytest.raises(ArgumentError, match=r"'bfloat16'.*\(onnx: float32, int8\)"):
        runtimes.network(model, "onnx", precision="bfloat16")
    with pytest.raises(ArgumentError, match=r"'bfloat16'.*\(callable: float32\)"):
        runtimes.network(lambda x, t: x, precision="bfloat16")


def test_sessions_have_the_threads_asked_for_and_are_cached_by_them(small, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    made = []
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda file, options, **rest: made.append(options) or real(file, options, **rest))
    model = df.load(small())
    plan = df.plan(model.schedule, "ddim", 2, prediction_type=model.prediction_type)
    samplers = [df.Sampler(model, plan, runtime="onnx", threads=threads) for threads in (1, 2, 1)]
    assert [options.intra_op_num_threads for options in made] == [1, 2]
    first, *others = [sampler.sample(1, seed=0) for sampler in samplers]
    assert all((first == other).all() for other in others)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinities")
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_threads_left_out_are_the_physical_cores_that_the_process_may_have(small, runtime):
    """onnxruntime took as many threads as the machine has cores, which is not what tune held others to."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import diffuse_fast as df, numpy as np
from diffuse_fast.runtimes import network, openvino
from diffuse_fast.tuning import search
model, runtime = df.load(sys.argv[1]), sys.argv[2]
net = network(model, runtime)
net.bind(1, model.shape, {"label": np.zeros(1, int)})
if runtime == "onnx":
    told = net.session.get_session_options().intra_op_num_threads
else:
    (compiled,) = openvino._models[model].compiled.values()
    told = compiled.get_property("INFERENCE_NUM_THREADS")
print(told, search._default(model, "float32", [runtime]).threads)
"""
    done = subprocess.run([sys.executable, "-c", code, str(small()), runtime], capture_output=True, text=True, timeout=280)
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_cores_that_share_units_count_once_for_every_runtime(small, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setattr(machine, "physical_cores", lambda: 3)
    model = df.load(small())
    assert runtimes.network(model, "onnx").session.get_session_options().intra_op_num_threads == 3
    assert runtimes.network(model, "openvino")._threads == 3


@pytest.mark.parametrize("model", [lambda x, t: x, "module", "session"])
def test_threads_are_refused_where_a_runtime_has_its_own(small, model):
    if model == "module":
        model = pytest.importorskip("torch").nn.Identity()
    elif model == "session":
        model = pytest.importorskip("onnxruntime").InferenceSession(small(), providers=["CPUExecutionProvider"])
    plan = df.plan(df.Schedule.linear(), "ddim", 2, prediction_type="epsilon")
    with pytest.raises(ArgumentError, match="threads cannot be set"):
        df.Sampler(model, plan, shape=(1, 8, 8), threads=2)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_invalid_numbers_of_threads_are_refused(small, threads):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"threads is "):
        df.sample(df.load(small()), 1, 2, threads=threads)


@pytest.mark.parametrize("forced, says", [("torch", "does not run a model of kind 'callable'"), ("onxn", "Did you mean 'onnx'")])
def test_a_forced_runtime_that_cannot(forced, says):
    with pytest.raises(ArgumentError, match=says):
        runtimes.network(lambda x, t: x, forced)


def test_a_missing_package_names_its_extra(small, monkeypatch):
    model = df.load(small())
    find = importlib.util.find_spec
    missing = ("onnxruntime", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else find(name, *a))
    with pytest.raises(MissingDependencyError, match=r"onnxruntime.*pip install .\.\[cpu\]") as caught:
        runtimes.network(model, "onnx")
    assert isinstance(caught.value, ImportError)
    assert runtimes.network(model).name == "native"  # which needs none


def test_auto_where_native_does_not_run_the_model(small, monkeypatch):
    model = df.load(small())
    monkeypatch.setattr(programs, "lower_model", refuse)
    assert runtimes.select(model).name == "onnx"
    find = importlib.util.find_spec
    missing = ("onnxruntime", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else find(name, *a))
    with pytest.raises(MissingDependencyError, match=r"onnxruntime.*'native' does not run it: there is no Det"):
        runtimes.select(model)
    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(_core, "kernels", lambda: [("avx2", "too old"), ("scalar", None)])
    assert runtimes.select(df.load(small())).name == "onnx"


def refuse(model):
    raise UnsupportedError("there is no Det")


def test_a_folder_with_the_name_of_a_package_is_not_the_package(tmp_path):
    """auto took a runtime that could not be imported, where a folder beside the script had its name."""
    for name in ("onnxruntime", "openvino", "torch"):
        (tmp_path / name).mkdir()
    code = """
import sys
from diffuse_fast.runtimes.registry import RUNTIMES
sys.path[:] = [sys.argv[1]]
print([r.name for r in RUNTIMES if r.installed])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['native', 'callable']"


def test_what_is_installed_is_found():
    for runtime in runtimes.registry.RUNTIMES:
        if runtime.package is not None:
            pytest.importorskip(runtime.package)
            assert runtime.installed


@pytest.mark.parametrize("model", [None, 3, "digits"])
def test_models_of_other_types_are_refused(model):
    with pytest.raises(ArgumentTypeError, match="model"):
        runtimes.network(model)


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": 1.0}, {"threads": True}, {"threads": 2}])
def test_options_that_cannot_be_used(options):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=next(iter(options))):
        runtimes.network(lambda x, t: x, **options)


def test_importing_runtimes_loads_none():
    code = """
import sys
import diffuse_fast.runtimes, diffuse_fast.exporting, diffuse_fast.model
print([m for m in ("torch", "onnxruntime", "onnx", "onnxscript", "triton") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_callable_model_needs_no_torch():
    code = """
import sys
sys.modules.update(torch=None, onnxruntime=None)
from diffuse_fast.runtimes import network
call = network(lambda x, t: 2 * x).bind(3, (2,), {})
call.x[...] = 1
print(call(5.0).sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "12.0", done.stderr
