"""``tune`` and what ``auto`` makes of it. What is fastest is not asked here: times are the machine's."""

from __future__ import annotations

import dataclasses
import errno
import gc
import importlib.metadata
import json
import logging
import os
import threading
import weakref

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import machine
from diffuse_fast.errors import ArgumentError, NetworkError, OutputError
from diffuse_fast.runtimes import network, openvino, tuning_cache
from diffuse_fast.runtimes.base import MemoryCall
from diffuse_fast.runtimes.native import NativeNetwork
from diffuse_fast.runtimes.onnx import OnnxNetwork
from diffuse_fast.runtimes.tuned import nearest
from diffuse_fast.runtimes.tuning_cache import Choice
from diffuse_fast.tuning import search, trial
from diffuse_fast.tuning.ab_timing import Comparison

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(tuning_cache.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model():
    return df.load("digits")


def keep(model, *found):
    by: dict[str, dict[int, Choice]] = {}
    for batch, choice in found:
        by.setdefault(choice.precision, {})[batch] = choice
    return tuning_cache.write(model, by)


def test_tune_finds_keeps_and_auto_takes(cache, model, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "physical_cores", lambda: 2)
    assert network(model).name == "native"
    lines = []
    found = df.tune(model, [1, 4], precisions=["float32"], seconds=0.02, progress=lines.append)
    assert set(found.best) == {"float32"} and set(found.best["float32"]) == {1, 4}
    for size, best in found.best["float32"].items():
        timed = [c for c in found.candidates if c.batch == size and c.refused is None]
        assert {c.choice.runtime for c in timed} == {"native", "onnx", "openvino"}
        assert [(c.choice.runtime, c.choice.threads) for c in timed if c.default] == [("native", 2)]
        assert best in [c.choice for c in timed] and best.seconds > 0 and best.why
        assert [c.choice.seconds for c in timed] == sorted(c.choice.seconds for c in timed)
        assert all(c.error <= search.ROUNDING and c.turns >= 1 and c.p20 <= c.choice.seconds <= c.p80 for c in timed)
        assert any(f"batch {size}, float32" in line and "0.3 s" in line for line in lines)  # the most that it will take
        assert any(f"batch {size}, float32" in line and best.why in line for line in lines)
    assert found.file is not None and found.file.parent == cache and [p.name for p in cache.iterdir()] == [found.file.name]
    assert network(model).name == "tuned"
    assert network(model, "onnx").name == "onnx" and network(model, threads=1).name == "native"  # what is said is done
    assert tuning_cache.read(model) == {"float32": found.best["float32"]}


def test_auto_gives_the_bits_of_what_it_took(cache, model):
    keep(model, (2, Choice("openvino", 1)), (16, Choice("onnx", 1)))
    for n, runtime in ((2, "openvino"), (16, "onnx")):
        tuned = df.sample(model, n, 3, seed=5, cond={"label": 3})
        forced = df.sample(model, n, 3, seed=5, cond={"label": 3}, runtime=runtime)
        np.testing.assert_array_equal(tuned, forced)


def test_a_stored_precision_is_not_used_for_another(cache, model):
    keep(model, (1, Choice("openvino", 1, precision="bfloat16")))
    assert network(model).name == "native"
    assert set(tuning_cache.read(model)) == {"bfloat16"}


def test_answers_are_added_to_those_there_are(cache, model):
    keep(model, (1, Choice("onnx", 1)))
    keep(model, (8, Choice("openvino", 2)), (1, Choice("openvino", 1, precision="bfloat16")))
    keep(model, (1, Choice("onnx", 2)))
    assert tuning_cache.read(model)["float32"] == {1: Choice("onnx", 2), 8: Choice("openvino", 2)}
    assert len(tuning_cache.entries()) == 3 and {a["model"] for a in tuning_cache.entries()} == {"digits"}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", json.dumps({"format": tuning_cache.FORMAT}), '"x"', "[" * 10_000]
    + [
        json.dumps({"format": tuning_cache.FORMAT, "artifact": "?", "model": "m", "machine": {}, "choices": c})
        for c in ([1], [{"batch": 1}], [{"batch": 0, "runtime": "onnx", "threads": 1}], [{"batch": 1, "runtime": 3, "threads": 1}])
    ],
)
def test_a_corrupt_cache_is_ignored_and_said(cache, model, content, caplog, monkeypatch):
    monkeypatch.setattr(tuning_cache, "machine_key", dict)
    file = keep(model, (1, Choice("openvino", 1)))
    file.write_text(content)
    with caplog.at_level(logging.WARNING, "diffuse_fast"):
        assert network(model).name == "native" and tuning_cache.entries() == []
    assert "ignored" in caplog.text
    keep(model, (1, Choice("openvino", 1)))  # and written anew
    assert network(model).name == "tuned"


def test_another_machine_artifact_or_runtime(cache, model, small, monkeypatch):
    file = keep(model, (1, Choice("openvino", 1)))
    assert network(df.load(small())).name == "native"
    here = tuning_cache.machine_key()
    monkeypatch.setattr(tuning_cache, "machine_key", lambda: here | {"cores": 99})
    assert network(model).name == "native" and tuning_cache.entries() == []
    monkeypatch.undo()
    monkeypatch.setenv(tuning_cache.ENVIRONMENT, str(cache))
    file.write_text(file.read_text().replace('"openvino",', '"os",'))
    assert network(model).name == "native"


def test_a_choice_of_before_is_dropped_with_a_message(cache, model, caplog):
    """Its runtime may be gone, as mnn is, and it knew neither native nor that it is the default."""
    tuning_cache._warn_of_old.cache_clear()
    raw = json.loads(keep(model, (1, Choice("onnx", 1))).read_text())
    for file in cache.iterdir():
        file.unlink()
    old = {**raw["choices"][0], "runtime": "mnn", "split": 2, "shortcuts": True}
    (cache / "tune-0123456789abcdef.json").write_text(json.dumps({**raw, "format": 2, "choices": [old]}))
    with caplog.at_level(logging.WARNING, "diffuse_fast"):
        assert network(model).name == "native" and tuning_cache.entries() == []
        df.sample(model, 1, 1, seed=0, cond={"label": 3})
    assert caplog.text.count("as mnn is. Tune again") == 1 and str(cache) in caplog.text


def test_another_version_under_another_name(cache, model, monkeypatch):
    """The extra gpu installs onnxruntime-gpu, whose answers were those of every version."""
    real = importlib.metadata.version

    def installed(version):
        def told(name):
            if name == "onnxruntime":
                raise importlib.metadata.PackageNotFoundError(name)
            return version if name == "onnxruntime-gpu" else real(name)

        monkeypatch.setattr(importlib.metadata, "version", told)

    installed("1.20.0")
    assert tuning_cache.machine_key()["versions"]["onnxruntime"] == "1.20.0"
    keep(model, (1, Choice("openvino", 1)))
    assert tuning_cache.entries()
    installed("1.21.0")
    assert not tuning_cache.entries() and not tuning_cache.read(model)


def test_no_cache(model, monkeypatch, tmp_path):
    monkeypatch.setenv(tuning_cache.ENVIRONMENT, "off")
    assert tuning_cache.folder() is None and keep(model, (1, Choice("openvino", 1))) is None and network(model).name == "native"
    monkeypatch.delenv(tuning_cache.ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning_cache.folder() == tmp_path / "diffuse_fast"
    (tmp_path / "file").touch()
    monkeypatch.setenv(tuning_cache.ENVIRONMENT, str(tmp_path / "file"))
    with pytest.raises(OutputError, match=tuning_cache.ENVIRONMENT):
        keep(model, (1, Choice("onnx", 1)))


def test_an_impossible_stored_choice_is_ignored(cache, model):
    """It stopped with a KeyError, or stood still while threads were made."""
    file = keep(model, (1, Choice("openvino", 1)))
    raw = json.loads(file.read_text())
    for other in ({"shortcuts": True}, {"threads": 10**6}, {"threads": None}, {"seconds": "1"}):
        file.write_text(json.dumps({**raw, "choices": [{**raw["choices"][0], **other}]}))
        assert network(model).name == "native", other


@pytest.mark.parametrize("failing", ["network", "bind"])
def test_what_fails_in_whatever_way_is_refused(cache, model, monkeypatch, failing):
    """A RuntimeError of one runtime ended the tuning of all."""
    made = openvino.network

    def raises(*_, **__):
        raise RuntimeError("a runtime's own")

    def breaking(*arguments, **options):
        net = made(*arguments, **options)
        net.bind = raises
        return net

    monkeypatch.setattr(openvino, "network", raises if failing == "network" else breaking)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    found = df.tune(model, [1], runtimes=["onnx", "openvino"], seconds=1e-3)
    refused = {c.choice.runtime: c.refused for c in found.candidates if c.refused is not None}
    assert refused == {"openvino": "RuntimeError: a runtime's own"}
    assert found.best["float32"][1].runtime == "onnx"


def test_a_runtime_that_ends_the_process_is_refused(cache, model, monkeypatch, tmp_path):
    """The packages of others are tried in a process of its own. This one is not what tune has imported."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        "import os\nprint('out of order', file=__import__('sys').stderr)\nos.abort()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    found = df.tune(model, [1], runtimes=["native", "onnx"], seconds=1e-3)
    refused = {c.choice.runtime: c.refused for c in found.candidates if c.refused is not None}
    assert refused == {"onnx": "it ended the process with the signal SIGABRT: out of order"}
    assert found.best["float32"][1].runtime == "native"


def test_a_trial_that_hangs_or_exits(cache, model, monkeypatch):
    one = [Choice("onnx", 1)]
    assert trial.ended(model, 1, one) is None
    assert trial.ended(model, 1, [Choice("onnx", 1, precision="bfloat16")]) is None  # an error is no end
    monkeypatch.setattr(trial, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(trial, "_TIMEOUT", 0.5)
    assert trial.ended(model, 1, one) == "it did not return within 0.5 s"
    monkeypatch.setattr(trial, "_CODE", "import sys; sys.exit(7)")
    monkeypatch.setattr(trial, "_TIMEOUT", 60)
    assert trial.ended(model, 1, one) == "it ended the process with the status 7"


def test_a_trial_calls_each_candidate(model, monkeypatch):
    called, call = [], MemoryCall.__call__
    monkeypatch.setattr(MemoryCall, "__call__", lambda self, t: called.append((type(self).__name__, len(self.x))) or call(self, t))
    choices = [Choice("onnx", 1), Choice("mnn", 1), Choice("openvino", 2)]
    trial.run(dataclasses.replace(model, schedule=None), 3, choices)
    assert set(called) == {("OnnxCall", 3), ("OpenVINOCall", 3)}


def test_a_reference_that_fails_is_an_error(cache, model, monkeypatch):
    def raises(*_):
        raise RuntimeError("a runtime's own")

    monkeypatch.setattr(NativeNetwork, "bind", raises)
    with pytest.raises(RuntimeError, match="a runtime's own"):
        df.tune(model, [1], runtimes=["openvino"], seconds=1e-3)


@pytest.mark.parametrize("denied", [("stat", "listdir", "scandir"), ("stat",)], ids=["a folder above it", "the files in it"])
def test_a_cache_that_cannot_be_looked_into_is_as_if_empty(cache, model, denied, caplog, monkeypatch):
    """Every sample stopped with a PermissionError where a container's plain user has the home of root."""
    keep(model, (1, Choice("openvino", 1)))

    def denies(real):
        def denying(where=".", *rest, **options):
            if str(where).startswith(str(cache)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(where))
            return real(where, *rest, **options)

        return denying

    for name in denied:
        monkeypatch.setattr(os, name, denies(getattr(os, name)))
    with caplog.at_level(logging.WARNING, "diffuse_fast"):
        assert network(model).name == "native" and tuning_cache.entries() == []
    assert str(cache) in caplog.text and "PermissionError" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_cache_is_not_waited_for(cache, model):
    file = keep(model, (1, Choice("openvino", 1)))
    file.unlink()
    os.mkfifo(file)
    asked = threading.Thread(target=lambda: (network(model), tuning_cache.entries()), daemon=True)
    asked.start()
    asked.join(20)
    assert not asked.is_alive()


def test_concurrent_writers_leave_a_complete_file(cache, model):
    threads = [threading.Thread(target=keep, args=(model, (n, Choice("onnx", n)))) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tuning_cache.read(model)["float32"]
    assert found and all(choice == Choice("onnx", n) for n, choice in found.items())
    assert len(list(cache.iterdir())) == 1


def test_what_computes_something_else_is_not_timed(cache, model, monkeypatch):
    bind = OnnxNetwork.bind

    def wrong(self, *arguments):
        call = bind(self, *arguments)
        if self.session.get_session_options().intra_op_num_threads == 1:
            return call
        run = type(call).__call__
        off = type("Off", (type(call),), {"__call__": lambda self, t: np.multiply(run(self, t), 1.01, out=self.output)})
        call.__class__ = off
        return call

    monkeypatch.setattr(OnnxNetwork, "bind", wrong)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    found = df.tune(model, [4], runtimes=["onnx"], seconds=1e-3)
    refused = [c for c in found.candidates if c.refused is not None]
    assert [c.choice.threads for c in refused] == [2] and refused[0].turns == 0
    assert refused[0].error == pytest.approx(0.01, rel=1e-3)
    assert found.best["float32"][4].threads == 1


def test_what_lost_is_let_go(cache, model, monkeypatch):
    """Without a collection of garbage: nothing of a candidate may lie in a circle."""
    made = []
    real = onnxruntime.InferenceSession

    def making(*arguments, **options):
        session = real(*arguments, **options)
        made.append(weakref.ref(session))
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", making)
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setattr(machine, "physical_cores", lambda: 3)
    gc.disable()
    try:
        found = df.tune(model, [4], runtimes=["onnx"], seconds=1e-3)
    finally:
        gc.enable()
    assert len({c.choice.threads for c in found.candidates}) == 5 and len(made) >= 5
    assert sum(session() is not None for session in made) <= 4  # what is kept for any model


def test_what_cannot_be_tuned(cache, model):
    for options, says in (
        ({"batch_sizes": []}, "at least one"),
        ({"precisions": ["int3"]}, "int3.*onnx: float32"),
        ({"runtimes": ["torch"]}, "torch"),
        ({"batch_sizes": [0]}, "batch_sizes"),
    ):
        with pytest.raises(ArgumentError, match=says):
            df.tune(model, **{"seconds": 1e-3, **options})


def test_threads_that_are_tried():
    assert search.thread_counts(1, 1) == [1]
    assert search.thread_counts(6, 3) == [1, 2, 3, 4, 6]
    assert search.thread_counts(16, 8) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("winner", "rounds", "others", "says"),
    [
        (0, 20, 0.0, "the default, because no other was significantly faster in 20 rounds"),
        (0, 4, 0.0, "4 rounds are too few"),
        (0, 20, 0.4, "other processes took 40% of the cores"),
        (2, 20, 0.0, "2.00 times as fast as the default, and faster in 20 of 20 rounds"),
    ],
)
def test_what_won_is_kept_with_its_reason(cache, model, monkeypatch, winner, rounds, others, says):
    def held(runs, seconds, **_):
        assert all(isinstance(run(), np.ndarray) for run in runs)
        return Comparison(tuple(np.full(rounds, 0.02 if i != 2 else 0.01) for i in range(len(runs))), winner, others)

    monkeypatch.setattr(search, "compare", held)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "physical_cores", lambda: 2)
    found = df.tune(model, [2], runtimes=["onnx"])
    best = found.best["float32"][2]
    (default,) = (c for c in found.candidates if c.default)
    # Without tune, onnxruntime takes the physical cores.
    assert (default.choice.runtime, default.choice.threads) == ("onnx", 2)
    assert (best == default.choice) == (winner == 0)
    assert says in best.why
    assert tuning_cache.choices(model, "float32") == {2: best} and tuning_cache.entries()[0]["why"] == best.why


def test_the_candidates_on_fewer_cores_take_fewer_than_the_default(cache, model, monkeypatch):
    passed = []

    def compared(runs, seconds, *, on_fewer_cores, **_):
        passed.append(on_fewer_cores)
        return Comparison(tuple(np.full(20, 0.02 + 0.001 * i) for i in range(len(runs))), 0, 0.0)

    monkeypatch.setattr(search, "compare", compared)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "physical_cores", lambda: 2)
    found = df.tune(model, [2], runtimes=["onnx"])
    taken = [c.choice.threads for c in found.candidates]  # in their order, as each is slower than the one before
    assert taken[0] == 2 and set(taken) == {1, 2, 4}
    assert set(passed[0]) == {i for i, cores in enumerate(taken) if cores == 1}


def test_a_batch_may_be_larger_than_any_number_of_threads(cache, model):
    keep(model, (5000, Choice("onnx", 2)))
    assert tuning_cache.choices(model, "float32") == {5000: Choice("onnx", 2)}


def test_where_the_default_is_refused_the_next_is_held_to(cache, model, monkeypatch):
    bind = OnnxNetwork.bind
    calls = []

    def failing(self, *arguments):
        calls.append(self)
        if len(calls) == 1:
            raise NetworkError("it failed")
        return bind(self, *arguments)

    monkeypatch.setattr(OnnxNetwork, "bind", failing)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    found = df.tune(model, [1], runtimes=["onnx"], seconds=1e-3)
    assert [(c.choice.threads, c.default, c.refused) for c in found.candidates] == [(1, True, None), (2, False, "it failed")]
    assert found.best["float32"][1].threads == 1


def test_nearest_is_by_ratio():
    assert [nearest(n, [1, 16, 64]) for n in (1, 3, 4, 5, 31, 32, 33, 1000)] == [1, 1, 1, 16, 16, 16, 64, 64]
