"""What commands print: on a terminal without UTF-8, before and after they write, and while they work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import console

# Every command in one process, as `diffuse-fast` starts them. What takes long is replaced by what prints the same kind of text.
EVERY_COMMAND = """
import os, sys
from types import SimpleNamespace
import diffuse_fast.learning.learn, diffuse_fast.quantization, diffuse_fast.tuning
from diffuse_fast.cli import main
from diffuse_fast.runtimes.tuning_cache import Choice

won = Choice("onnx", 1, seconds=1e-3, why="fastest by 2 % ± 1")
tuning = SimpleNamespace(best={"float32": {1: won}}, candidates=[], file=None)
diffuse_fast.tuning.tune = lambda *a, progress, **k: (progress("Fréchet →"), tuning)[1]
learned = SimpleNamespace(table=lambda: [("ddim → learned", 0.5, 0.5)], model=None)
diffuse_fast.learning.learn.learn_each = lambda *a, progress, **k: (progress("Fréchet →"), [learned])[1]
found = {"layers": ["a"], "calibration": {}, "relative_error": {}, "frechet_distance": None}
written = SimpleNamespace(to_json=lambda: {"quantization": found})
diffuse_fast.quantization.quantize = lambda *a, progress, **k: (progress("Fréchet →"), written)[1]
odd = os.fsdecode("é.onnx".encode())  # as the shell gives it
commands = [
    ["doctor"], ["solvers"], ["inspect", "digits"], ["--help"], ["evaluate", "--help"],
    ["sample", "digits", "-n", "1", "--steps", "1", "--out", odd[:-4] + "npy"],
    ["likelihood", "digits", "x.npy", "--evaluations", "1"],
    ["tune", "digits"], ["quantize", "digits", "--out", "q.onnx"], ["learn-solver", "digits", "--steps", "5", "--out", odd],
    ["sample", "no → model", "--steps", "1"], ["sample", "digits", "--seed", "é"], ["--fé"],
]
statuses = []
for arguments in commands:
    sys.argv = ["diffuse-fast", *arguments]
    try:
        main()
        statuses.append((0, arguments))
    except SystemExit as end:
        statuses.append((end.code or 0, arguments))
assert [s for s, _ in statuses] == [0] * 10 + [1, 2, 2], statuses
print("all done")
"""


def plain_terminal(code: str, folder, encoding: str = "ascii") -> subprocess.CompletedProcess:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    (folder / "command.py").write_text(code, encoding="utf-8")
    return subprocess.run([sys.executable, "command.py"], cwd=folder, env=env, capture_output=True, timeout=250)


def test_without_utf_8_every_command_prints_what_it_can(tmp_path):
    pytest.importorskip("onnxruntime")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    shutil.copy(df.load("digits").path, tmp_path / "é.onnx")  # what the stand-in of learn-solver would have written
    done = plain_terminal(EVERY_COMMAND, tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(b"all done\n")
    assert b"Traceback" not in done.stderr
    assert b"> fastest by 2 % +- 1" in done.stdout  # what `tune` prints with an arrow and a plus-minus sign
    assert b"accuracy, Frechet distance" in done.stdout  # the help of `evaluate`
    assert b"--seed is 'e'; it must be an integer" in done.stderr and b"No such option: --fe" in done.stderr
    assert done.stdout.isascii() and done.stderr.isascii()


def test_recipes_and_evaluate_without_utf_8(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    code = """
import sys
from pathlib import Path
from diffuse_fast.cli import main
from diffuse_fast.training.evaluation import REAL, Quality, image_quality
from examples.digits import train as digits
from examples.emoji import train as emoji

def card(out, **_):
    Path(out).mkdir(exist_ok=True)
    for name in ("digits", "emoji"):
        (Path(out) / f"{name}.md").write_text("Fréchet → ±", encoding="utf-8")

digits.train_digits = emoji.train_emoji = card
rows = [Quality(name, n, n, 50.0, 5.0, 9.0, 0.5, 0.5) for name, n in ((REAL, 0), ("ddim", 5))]
image_quality.evaluate = lambda *a, **k: iter(rows)
digits.main(["--out", "d"])
emoji.main(["--out", "e"])
sys.argv = ["diffuse-fast", "evaluate", "digits", "--out", "q"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    done = plain_terminal(code, tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode("ascii")  # and nothing but ASCII
    assert shown.count("Frechet > +-") == 2
    assert "Frechet distance" in shown
    assert "ddim,5,5" in (tmp_path / "q" / "quality.csv").read_text()
    assert (tmp_path / "q" / "quality.png").exists()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "é → … ± × − 日 ?"), ("iso8859-1", "é > ... ± × - ? ?"), ("ascii", "e > ... +- x - ? ?")]
)
def test_what_an_encoding_lacks_is_replaced(tmp_path, encoding, shown):
    code = r"from diffuse_fast.console import degrade; degrade(); print('é → … ± × − 日 \udcff')"
    done = plain_terminal(code, tmp_path, encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding) == shown + "\n"


def test_evaluate_keeps_what_it_measured(run, tmp_path, monkeypatch):
    """Each row is in the file before the next is measured, and the plot before anything is shown."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from diffuse_fast.cli import tables
    from diffuse_fast.training.evaluation import image_quality

    rows = [image_quality.Quality(name, n, n, 50.0, 5.0, 9.0, 0.5, 0.5) for name, n in ((image_quality.REAL, 0), ("ddim", 5))]

    def interrupted(*_args, **_options):
        yield from rows
        raise KeyboardInterrupt

    def broken(*_args, **_options):
        raise UnicodeEncodeError("ascii", "é", 0, 1, "no such character")

    monkeypatch.setattr(image_quality, "evaluate", interrupted)
    run("evaluate", "digits", "--out", "a")
    assert (tmp_path / "a" / "quality.csv").read_text().count("\n") == 3
    monkeypatch.setattr(image_quality, "evaluate", lambda *_args, **_options: iter(rows))
    monkeypatch.setattr(tables, "show", broken)
    assert isinstance(run("evaluate", "digits", "--out", "b").exception, UnicodeEncodeError)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["quality.csv", "quality.png"]


@pytest.mark.parametrize(("drawn", "status"), [(1, 0), (0, 1)])
def test_evaluate_fails_where_nothing_could_be_drawn(run, monkeypatch, drawn, status):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from diffuse_fast.training.evaluation import image_quality

    rows = [image_quality.Quality(name, n, n, 50.0, 5.0, 9.0, 0.5, 0.5) for name, n in ((image_quality.REAL, 0), ("ddim", 5))]
    monkeypatch.setattr(image_quality, "evaluate", lambda *_args, **_options: iter(rows[: 1 + drawn]))
    assert run("evaluate", "digits").exit_code == status


def test_evaluate_asks_for_matplotlib_before_it_measures(run, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from diffuse_fast.training.evaluation import image_quality

    monkeypatch.setattr(image_quality, "evaluate", lambda *_args, **_options: pytest.fail("measured"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("evaluate", "digits", "--out", "a")
    assert (result.exit_code, "pip install '.[evaluate]'" in result.stderr) == (1, True), result.stderr


def test_without_a_terminal_long_work_prints_progress_lines(run, monkeypatch):
    pytest.importorskip("onnxruntime")
    arguments = ("sample", "digits", "-n", 2, "--steps", 3, "--seed", 1, "--out", "x.npy")
    assert run(*arguments).stderr == ""  # it takes less than the interval
    monkeypatch.setattr(console, "INTERVAL", 0.0)
    lines = run(*arguments).stderr.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [f"sampling: row {i} of 3" for i in (1, 2, 3)]


def test_lines_come_once_in_an_interval(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    due = console.Interval()
    told = []
    for second in range(60):
        now[0] = float(second)
        if due():
            told.append(second)
    assert told == [10, 20, 30, 40, 50]


def test_training_prints_lines_too(monkeypatch, capsys):
    pytest.importorskip("torch")
    from diffuse_fast.training.run.progress import progress_bar

    monkeypatch.setattr(console, "INTERVAL", 0.0)
    with progress_bar(1000, shown=True) as report:  # a line each 50 steps, were it not for the interval
        for step in (1, 2, 3):
            report(step, 0.5)
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == [f"step {i} of 1000" for i in (1, 2, 3)]
