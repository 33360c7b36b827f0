"""What all commands share: help, version, errors, the installed entry point."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError

COMMANDS = ("sample", "batch", "train", "export", "compile", "inspect", "learn-solver", "evaluate", "likelihood", "tune",
            "quantize", "solvers", "doctor")  # fmt: skip


def python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, **options)


def test_help_and_version(run):
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)
    assert run("--version").stdout == f"diffuse-fast {df.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f" {command} [OPTIONS]" in result.stdout


def test_an_unknown_command_is_a_usage_error(run):
    result = run("smaple")
    assert result.exit_code == 2
    assert "smaple" in result.stderr


def test_an_error_is_one_message_and_with_debug_a_traceback(run):
    result = run("sample", "digits", "--steps", 0)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "diffuse-fast: steps is 0; this schedule allows 1 to 1000 with leading spacing.\n"
    assert isinstance(run("--debug", "sample", "digits", "--steps", 0).exception, ArgumentError)


def test_what_this_machine_lacks_has_a_status_of_its_own(run, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "avx3")
    result = run("sample", "digits", "--steps", 2)
    assert (result.exit_code, "avx3" in result.stderr) == (3, True), result.stderr


def test_help_loads_nothing_heavy():
    code = """
import sys
from diffuse_fast.cli import main
sys.argv = ["diffuse-fast", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print("loaded:", [m for m in ("torch", "onnxruntime", "onnx", "triton", "numpy", "PIL") if m in sys.modules])
"""
    result = python(code)
    assert result.stdout.splitlines()[-1] == "loaded: []", result.stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_get_it(missing):
    result = python(f"import sys; sys.modules[{missing!r}] = None; from diffuse_fast.cli import main; main()")
    assert result.returncode == 1
    hint = "pip install '.[cli]' in the checkout of diffuse_fast"
    assert result.stderr == f"diffuse-fast: the command line needs {missing}: {hint}\n"


@pytest.mark.parametrize("module", ["diffuse_fast", "diffuse_fast.cli"])
def test_it_is_a_module_too(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout) == (0, f"diffuse-fast {df.__version__}\n"), done.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("diffuse-fast sam", ["sample"]),
        ("diffuse-fast learn", ["learn-solver"]),
        ("diffuse-fast sample digits --guidance-s", ["--guidance-scale"]),
    ],
)
def test_the_shell_completes(typed, completed):
    words = typed.split()
    asked = {"_DIFFUSE_FAST_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = python("from diffuse_fast.cli import main; main()", env={**os.environ, **asked})
    assert done.stdout.split() == completed, done.stderr


def test_completion_can_be_installed(run):
    assert "--install-completion" in run("--help").stdout


def test_a_source_folder_without_the_core_says_what_to_do(tmp_path):
    """After `make demo`, Python started in the checkout finds the source folder before the installed package."""
    ignored = shutil.ignore_patterns("_core*.so", "__pycache__", "bundled")
    shutil.copytree(Path(df.__file__).parent, tmp_path / "diffuse_fast", ignore=ignored)
    code = """
import diffuse_fast as df
try:
    from diffuse_fast import _core
except df.DiffuseFastError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    command = ["-m", "diffuse_fast"]
    packages = {**os.environ, "PYTHONPATH": str(Path(np.__file__).parents[1])}
    for arguments, status, stream in (
        (["-c", code], 0, "stdout"),
        ([*command, "doctor"], 1, "stderr"),
        ([*command, "--version"], 0, None),
    ):
        # Without site: the finder of an editable install comes before the folder.
        done = subprocess.run(
            [sys.executable, "-S", *arguments], cwd=tmp_path, env=packages, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == status, done.stderr
        if stream is not None:
            told = getattr(done, stream)
            assert str(tmp_path) in told and "python -P" in told and "pip install -e ." in told
            assert "Traceback" not in done.stderr


def test_hints_name_extras_that_exist():
    """The package is on no index: what is to be installed is an extra of the checkout."""
    package = Path(df.__file__).parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    assert "diffuse-fast[" not in source
    named = set(re.findall(r"install_hint\(['\"](\w+)['\"]\)", source))
    project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"cli", "cpu", "gpu", "train"} <= named <= set(project["project"]["optional-dependencies"])


def test_the_installed_command(tmp_path):
    pytest.importorskip("onnxruntime")
    command = Path(sysconfig.get_path("scripts")) / "diffuse-fast"
    out = tmp_path / "x.png"
    arguments = ["sample", "digits", "-n", "2", "--steps", "2", "--seed", "5", "--out", out.name]
    result = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert (result.returncode, result.stderr) == (0, "")
    assert "seed 5" in result.stdout
    assert out.read_bytes().startswith(b"\x89PNG")
    broken = subprocess.run(
        [command, "sample", "digits", "--steps", "0"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert broken.returncode == 1
    assert "Traceback" not in broken.stderr


def test_bench_runs_the_checkout_with_its_arguments_and_status(run, monkeypatch):
    asked = []

    def instead(command, **options):
        asked.append((command[1:], (options["cwd"] / "bench").is_dir()))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", instead)
    assert run("bench", "tiny", "--quick", "--help").exit_code == 3
    assert asked == [(["-m", "bench", "tiny", "--quick", "--help"], True)]


def test_bench_of_an_installed_package_says_where_it_is(run, monkeypatch, tmp_path):
    from diffuse_fast.cli.bench import bench

    monkeypatch.setattr(sys.modules[bench.__module__], "__file__", str(tmp_path / "a" / "b" / "bench.py"))
    result = run("bench")
    assert result.exit_code == 1
    assert "make bench" in result.stderr
