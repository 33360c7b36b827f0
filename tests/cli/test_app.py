"""What all commands share: help, version, errors, the installed entry point."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError

COMMANDS = ("sample", "train", "export", "inspect", "learn-solver", "evaluate", "likelihood", "tune", "quantize", "solvers",
            "doctor")  # fmt: skip


def python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


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
    assert result.stderr == f"diffuse-fast: the command line needs {missing}: pip install 'diffuse-fast[cli]'\n"


def test_the_installed_command(tmp_path):
    pytest.importorskip("onnxruntime")
    command = Path(sysconfig.get_path("scripts")) / "diffuse-fast"
    out = tmp_path / "x.png"
    arguments = ["sample", "digits", "-n", "2", "--steps", "2", "--seed", "5", "--out", out.name]
    result = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert "seed 5" in result.stdout
    assert out.read_bytes().startswith(b"\x89PNG")
    broken = subprocess.run([command, "sample", "digits"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
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
