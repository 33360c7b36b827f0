"""A folder of shards: its bits are those of ``df.sample``, and no death of a process loses or doubles a sample."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import batch
from diffuse_fast.batch import supervisor
from diffuse_fast.batch.worker import finite
from diffuse_fast.errors import ArgumentError, NonFiniteError, OutputError, StartError, UnavailableError, WorkerError

N, STEPS, LABELS = 11, 2, [3, 1, 4, 1, 5]
OPTIONS = {"steps": STEPS, "solver": "ddpm", "guidance_scale": 2.0, "cond": {"label": LABELS}, "shard_size": 4}


def read(folder: Path) -> tuple[list[int], np.ndarray]:
    """The ids and samples of all shards."""
    parts = [np.load(path) for path in sorted(folder.glob("shard-*.npz"))]
    return [i for part in parts for i in part["ids"].tolist()], np.concatenate([part["samples"] for part in parts])


@pytest.fixture(scope="module")
def wanted():
    cond = {"label": [LABELS[i % len(LABELS)] for i in range(N)]}
    return df.sample("digits", N, STEPS, solver="ddpm", seed=7, guidance_scale=2.0, cond=cond)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    assert batch.run("digits", N, folder, seed=7, processes=2, **OPTIONS).drawn == 3
    return folder


def test_the_bits_are_those_of_sample(drawn, wanted):
    ids, samples = read(drawn)
    assert ids == list(range(N))
    np.testing.assert_array_equal(samples, wanted)
    assert sorted(path.name for path in drawn.iterdir()) == ["batch.json", *(f"shard-0000{i}.npz" for i in range(3))]


def test_it_goes_on_with_what_is_missing_or_damaged(drawn, wanted):
    (drawn / "shard-00000.npz").unlink()
    (drawn / "shard-00002.npz").write_bytes((drawn / "shard-00002.npz").read_bytes()[:-30])
    kept = (drawn / "shard-00001.npz").stat().st_mtime_ns
    # Without a seed: the folder's.
    result = batch.run("digits", N, drawn, processes=1, **OPTIONS)
    assert (result.drawn, result.recipe.seed, result.failed) == (2, 7, ())
    assert (drawn / "shard-00001.npz").stat().st_mtime_ns == kept
    ids, samples = read(drawn)
    assert ids == list(range(N))
    np.testing.assert_array_equal(samples, wanted)
    again = batch.run("digits", N, drawn, **OPTIONS)
    assert (again.drawn, again.recipe) == (0, result.recipe)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", N + 1),
        ("seed", 8),
        ("solver", "ddim"),
        ("steps", 3),
        ("guidance_scale", 1.0),
        ("cond", {"label": [3]}),
        ("precision", "float32-fast"),
        ("shard_size", 5),
        ("format", "png"),
    ],
)
def test_another_recipe_is_refused_by_name(drawn, field, value):
    with pytest.raises(ArgumentError, match=rf"^{field}(\.label)? is .*was begun with"):
        batch.run("digits", out=drawn, **{"n": N, "seed": 7, **OPTIONS, field: value})


def test_another_network_is_refused(drawn, tmp_path):
    stored = json.loads((drawn / "batch.json").read_text())
    stored["network"]["program"] = "0"
    (tmp_path / "batch.json").write_text(json.dumps(stored))
    with pytest.raises(ArgumentError, match=r"^network\.program is"):
        batch.run("digits", N, tmp_path, processes=1, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"processes": 0}, "processes is 0"),
        ({"format": "jpg"}, "format is 'jpg'"),
        ({"cond": {"lable": [1]}}, "lable"),
        ({"cond": {"label": [11]}}, "outside"),
        ({"cond": {"label": []}}, "cond has lists"),
        ({"cond_file": "missing.npz"}, "missing.npz"),
        ({"cond_file": __file__}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        batch.run("digits", out=tmp_path / "out", **{"n": 4, **options})
    assert not (tmp_path / "out" / "batch.json").exists()


def test_shards_without_their_recipe_and_a_folder_in_use_are_refused(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "shard-00000.npz").touch()
    with pytest.raises(ArgumentError, match=r"no batch\.json"):
        batch.run("digits", 4, tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run"):
            batch.run("digits", 4, tmp_path)
    finally:
        os.close(descriptor)


def test_a_shard_of_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    np.savez(tmp_path / "labels.npz", label=np.arange(5))
    options = {"steps": 2, "seed": 1, "cond_file": tmp_path / "labels.npz", "format": "png", "shard_size": 3}
    batch.run("digits", 5, tmp_path / "out", processes=1, **options)
    pictures = {}
    for path in sorted((tmp_path / "out").glob("shard-*.zip")):
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                if name != "shard.json":
                    pictures[name] = np.array(image.open(io.BytesIO(file.read(name))))
    wanted = df.to_uint8(df.sample("digits", 5, 2, seed=1, cond={"label": np.arange(5)}))
    assert list(pictures) == [f"0000000{i}.png" for i in range(5)]
    np.testing.assert_array_equal(list(pictures.values()), wanted[:, 0])


def test_a_sample_that_is_not_finite_fails_alone(tmp_path, small):
    onnx = pytest.importorskip("onnx")
    path = small()
    proto = onnx.load(path)
    (table,) = (t for t in proto.graph.initializer if t.name == "table")
    values = onnx.numpy_helper.to_array(table).copy()
    values[2] = 3e38
    table.CopyFrom(onnx.numpy_helper.from_array(values, "table"))
    proto.graph.node[-1].output[0] = "once"
    proto.graph.node.append(onnx.helper.make_node("Add", ["once", "shift"], ["output"]))  # which overflows for label 2
    onnx.save(proto, path)
    labels = [0, 1, 2, 3, 2]
    options = {"steps": 3, "seed": 0, "cond": {"label": labels}, "shard_size": 4, "processes": 1}
    result = batch.run(path, 7, tmp_path / "out", **options)
    assert result.failed == (2, 4)
    ids, samples = read(tmp_path / "out")
    assert ids == [0, 1, 3, 5, 6]
    for number, x in zip(ids, samples, strict=True):
        one = df.sample(path, 1, 3, seed=0, first_index=number, cond={"label": labels[number % 5]})
        np.testing.assert_array_equal(x, one[0])
    # The exit status tells it, also when there is nothing left to draw.
    arguments = ["-n", "7", "--steps", "3", "--seed", "0", "--cond", "label=0,1,2,3,2", "--shard-size", "4"]
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    done = CliRunner().invoke(app, ["batch", str(path), "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 1
    assert "for 2 samples, which are left out: 2, 4." in done.stderr


def test_runs_are_drawn_again_without_the_samples_that_fail():
    def draw(ids):
        if bad := [i for i, number in enumerate(ids) if number in (10, 13, 14, 19)][:2]:
            raise NonFiniteError("", row=0, samples=tuple(bad))
        return np.array(ids)

    parts, failed = finite(draw, [range(10, 15), range(15, 20)])
    assert failed == [10, 13, 14, 19]
    assert [list(run) for run, _ in parts] == [[11, 12], [15, 16, 17, 18]]


# ---- processes that die --------------------------------------------------------------------------


def command(model, folder, *arguments):
    return [sys.executable, "-m", "diffuse_fast", "batch", str(model), "--out", str(folder), *arguments]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_workers_and_ctrl_c_lose_and_double_nothing(tmp_path):
    arguments = ["-n", "240", "--steps", "4", "--seed", "3", "--shard-size", "20", "--processes", "2"]
    process = subprocess.Popen(command("digits", tmp_path, *arguments), stderr=subprocess.PIPE, text=True)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        written(tmp_path, 1, process)
        killed = workers.read_text().split()
        assert len(killed) == 2
        for pid in killed:
            os.kill(int(pid), signal.SIGKILL)
        written(tmp_path, 1 + len(killed) + 1, process)  # each may have had one shard that was written and not yet heard of
        left = workers.read_text().split()
        assert not set(killed) & set(left)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    *deaths, last = errors.splitlines()
    assert [line.startswith("batch: a worker died (signal 9)") for line in deaths] == [True, True]
    assert last == "diffuse-fast: stopped. The shards that are written stay; the same command goes on."
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    there = len(read(tmp_path)[0])
    assert there < 240
    result = batch.run("digits", 240, tmp_path, steps=4, shard_size=20, processes=1)
    assert result.drawn == 12 - there // 20
    ids, samples = read(tmp_path)
    assert ids == list(range(240))
    np.testing.assert_array_equal(samples, df.sample("digits", 240, 4, seed=3, batch_size=64))


def written(folder: Path, shards: int, process: subprocess.Popen) -> None:
    """Wait until a process has written shards."""
    end = time.monotonic() + 200
    while len(list(folder.glob("shard-*"))) < shards:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def workers_that(monkeypatch, code):
    """Workers run this code, which has their end of the connection, in place of the module."""
    start = subprocess.Popen
    begin = "import os, sys\nfrom multiprocessing.connection import Connection\nconnection = Connection(int(sys.argv[1]))\n"
    count = []

    def popen(command, **options):
        count.append(1)
        return start([sys.executable, "-c", begin + code, command[-1]], **options)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        yield count


def test_a_shard_is_not_drawn_again_for_ever(tmp_path, monkeypatch):
    assert supervisor.RETRIES == 3
    monkeypatch.setattr(supervisor, "RETRIES", 1)
    dies = """connection.recv()
from diffuse_fast.batch.messages import Ready
connection.send(Ready({}))
connection.recv()
os._exit(9)
"""
    with workers_that(monkeypatch, dies) as count, pytest.raises(WorkerError, match=r"died 2 times .* shard 0 \(exit status 9\)"):
        batch.run("digits", 4, tmp_path, steps=2, processes=1)
    assert len(count) == 2


def test_workers_that_do_not_start_are_given_up(tmp_path, monkeypatch):
    with workers_that(monkeypatch, "os._exit(5)") as count, pytest.raises(StartError, match=r"3 workers .*exit status 5"):
        batch.run("digits", 4, tmp_path, steps=2, processes=1)
    assert len(count) == 3
    assert not list(tmp_path.iterdir())


def test_what_a_worker_lacks_is_its_own_error(tmp_path):
    with pytest.raises((UnavailableError, ArgumentError), match="bfloat16"):
        batch.run("digits", 4, tmp_path, steps=2, processes=1, runtime="native", precision="bfloat16")
    assert not list(tmp_path.iterdir())
