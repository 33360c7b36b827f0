"""The build: the CUDA switch, the C++ tests here and on AArch64, the rebuild on import. Minutes, so all of it is slow."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CORE = ["-DDIFFUSE_FAST_PYTHON=OFF", "-DDIFFUSE_FAST_TESTS=ON"]


def run(*command, env=None, cwd=None):
    # The tools of this environment first: the build's requirements are installed there.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [str(part) for part in command], env={**os.environ, "PATH": path, **(env or {})}, cwd=cwd, capture_output=True, text=True
    )


def checked(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("value", ["AUTO", "OFF"])
def test_cuda_may_be_left_out(tmp_path, value):
    checked("cmake", "-S", ROOT, "-B", tmp_path, f"-DUSE_CUDA={value}", "-DDIFFUSE_FAST_PYTHON=OFF")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("maybe", "USE_CUDA is 'maybe'; it must be AUTO, ON or OFF."),
    ],
)
def test_cuda_that_cannot_be_built_is_refused(tmp_path, value, said):
    done = run("cmake", "-S", ROOT, "-B", tmp_path, f"-DUSE_CUDA={value}", "-DDIFFUSE_FAST_PYTHON=OFF")
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())  # CMake wraps its messages


@pytest.mark.parametrize("value", ["AUTO", "ON"])
def test_a_broken_cuda_compiler_is_none(tmp_path, value):
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    done = run("cmake", "-S", ROOT, "-B", tmp_path / "build", f"-DUSE_CUDA={value}", "-DDIFFUSE_FAST_PYTHON=OFF",
               env={"CUDACXX": str(broken)})  # fmt: skip
    if value == "AUTO":
        assert done.returncode == 0, done.stderr
        assert "building without the CUDA kernels" in done.stdout
    else:
        assert done.returncode != 0
        assert "Install the CUDA toolkit 12 or 13" in " ".join(done.stderr.split())


def test_the_core_passes_its_own_tests(tmp_path):
    checked("cmake", "-S", ROOT, "-B", tmp_path, *CORE)
    checked("cmake", "--build", tmp_path, "--parallel", "2")
    assert " 0 failed checks" in checked(tmp_path / "tests/cpp/core_tests")


def test_neon_has_the_bits_of_x86(tmp_path):
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)")
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    checked("cmake", "-S", ROOT, "-B", tmp_path, *CORE, *target)
    checked("cmake", "--build", tmp_path, "--parallel", "2")
    # pool_forked_child is left out: qemu 7 in user mode cannot start a thread after a fork.
    chosen = ["bits", "noise", "schedule", "step", "pool_runs", "pool_concurrent", "pool_nested", "pool_float"]
    said = checked(emulator, "-L", "/usr/aarch64-linux-gnu", tmp_path / "tests/cpp/core_tests", *chosen)
    assert "ok     bits_are_those_of_the_table" in said


def test_an_editable_install_is_rebuilt_when_imported(tmp_path):
    tree, venv = tmp_path / "tree", tmp_path / "venv"
    tree.mkdir()
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    skipped = shutil.ignore_patterns("*.so", "__pycache__", "*.onnx")
    for name in ("csrc", "cmake", "diffuse_fast"):
        shutil.copytree(ROOT / name, tree / name, ignore=skipped)
    checked(sys.executable, "-m", "venv", venv)
    python = venv / "bin/python"
    # What this environment has, that one sees, but for diffuse_fast: its editable hook is not run from there.
    site = checked(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    paths = [sysconfig.get_path("purelib"), *(p for p in sys.path if p.endswith("site-packages"))]
    Path(site, "outer.pth").write_text("\n".join(dict.fromkeys(paths)))
    options = ["-C", "editable.rebuild=true", "-C", "editable.verbose=false", "-C", "cmake.build-type=Debug"]
    checked(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", *options, "-e", tree)

    ask = [python, "-P", "-c", "import diffuse_fast._core as core; print(core.__file__, core.__doc__)"]
    before = checked(*ask, cwd=tmp_path)
    assert str(tree) in before or str(venv) in before
    source = tree / "csrc/bindings/module.cpp"
    source.write_text(source.read_text().replace("The compiled core of diffuse_fast", "Rebuilt"))
    assert "Rebuilt" not in before
    assert "Rebuilt" in checked(*ask, cwd=tmp_path)
