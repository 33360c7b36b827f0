"""``diffuse-fast learn-solver``: the plan is in the file, and `sample` finds it."""

from __future__ import annotations

import inspect
import json
from typing import get_args, get_type_hints

import pytest

import diffuse_fast as df
from diffuse_fast.cli.learn_solver import learn_solver as command

pytest.importorskip("onnxruntime")

QUICK = ("--samples", 16, "--held-out", 16, "--reference-steps", 30, "--iterations", 1)


def test_learn_inspect_and_sample(run, small):
    path = small()
    before = path.read_bytes()
    done = run("learn-solver", path, "--steps", 2, "--steps", 3, "--out", "learned.onnx", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert path.read_bytes() == before
    assert [plan.steps for plan in df.load("learned.onnx").plans] == [2, 3]
    for part in ("small, 2 steps", "small, 3 steps", "(defaults)", "learned.onnx: learned plans of 2, 3 steps"):
        assert part in done.stdout
    assert "2 steps, 3 steps" in run("inspect", "learned.onnx").stdout
    assert json.loads(run("inspect", "learned.onnx", "--json").stdout)["document"]["version"] == 2
    drawn = run("sample", "learned.onnx", "-n", 2, "--steps", 3, "--solver", "learned", "--out", "x.npy")
    assert drawn.exit_code == 0, drawn.stderr
    refused = run("sample", "learned.onnx", "-n", 2, "--steps", 4, "--solver", "learned", "--out", "x.npy")
    assert refused.exit_code == 1 and "plans of 2, 3" in refused.stderr


def test_the_file_itself_takes_the_plan(run, small):
    path = small()
    assert run("learn-solver", path, "--steps", 1, *QUICK).exit_code == 0
    assert [plan.steps for plan in df.load(path).plans] == [1]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_bundled_model_is_not_written_to(run):
    refused = run("learn-solver", "digits", "--steps", 2)
    assert refused.exit_code == 2 and "--out" in refused.stderr


def test_what_cannot_be_written_is_refused_before_the_work(run, small):
    refused = run("learn-solver", small(), "--steps", 2, "--out", "none/learned.onnx", *QUICK)
    assert refused.exit_code == 1 and "none" in refused.stderr and "fine solver" not in refused.stderr


def test_the_defaults_that_help_shows_are_the_librarys():
    shown = get_type_hints(command, include_extras=True)
    taken = inspect.signature(df.learn_solver).parameters
    for name in ("samples", "held_out", "seed", "history", "iterations", "reference_steps", "batch_size"):
        _, option = get_args(shown[name])
        assert option.show_default == str(taken[name].default)
