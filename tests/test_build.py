"""The build: the CUDA switch, the C++ tests here and on AArch64, the rebuild on import. All are slow: they take minutes."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # builds may share the cores with other work

ROOT = Path(__file__).parents[1]
CORE = ["-DDIFFUSE_FAST_PYTHON=OFF", "-DDIFFUSE_FAST_TESTS=ON"]


def run(*command, env=None, cwd=None):
    env = {**os.environ, **(env or {})}
    # This environment's tools first: the build's requirements are installed there.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    return subprocess.run([str(part) for part in command], env=env, cwd=cwd, capture_output=True, text=True)


def checked(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def sharing(venv):
    """The interpreter of a new environment with this one's packages, except for diffuse_fast (no editable hook runs)."""
    checked(sys.executable, "-m", "venv", venv)
    python = venv / "bin/python"
    site = checked(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    paths = [sysconfig.get_path("purelib"), *(p for p in sys.path if p.endswith("site-packages"))]
    Path(site, "outer.pth").write_text("\n".join(dict.fromkeys(paths)))
    return python


NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
WITHOUT_NVCC = os.pathsep.join(d for d in os.environ["PATH"].split(os.pathsep) if not Path(d, "nvcc").exists())


def configured(folder, *options, **env):
    return run("cmake", "-S", ROOT, "-B", folder, "-DDIFFUSE_FAST_PYTHON=OFF", *options, env=env)


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_cuda_may_be_left_out(tmp_path):
    done = configured(tmp_path, "-DUSE_CUDA=OFF")
    assert done.returncode == 0, done.stderr
    assert "CUDA" not in done.stdout


def test_an_unknown_value_is_refused(tmp_path):
    done = configured(tmp_path, "-DUSE_CUDA=maybe")
    assert done.returncode != 0
    assert "USE_CUDA is 'maybe'; it must be AUTO, ON or OFF." in " ".join(done.stderr.split())  # CMake wraps its messages


@pytest.mark.parametrize("compiler", ["none", "CUDACXX", "path", "option"])
@pytest.mark.parametrize("value", ["AUTO", "ON"])
def test_a_missing_or_broken_cuda_compiler_is_ignored(tmp_path, value, compiler):
    broken = script(tmp_path / "broken/nvcc", "exit 1")
    options, env = [f"-DUSE_CUDA={value}"], {"PATH": WITHOUT_NVCC}
    if compiler == "CUDACXX":
        env["CUDACXX"] = broken
    elif compiler == "path":
        env["PATH"] = os.pathsep.join([str(Path(broken).parent), WITHOUT_NVCC])
    elif compiler == "option":
        options.append(f"-DCMAKE_CUDA_COMPILER={broken}")
    done = configured(tmp_path / "build", *options, **env)
    if value == "AUTO":
        assert done.returncode == 0, done.stderr
        assert "building without the CUDA kernels" in done.stdout
    else:
        assert done.returncode != 0
        assert "Install the CUDA toolkit 12 or 13" in " ".join(done.stderr.split())


@needs_nvcc
def test_the_named_cuda_compiler_is_used(tmp_path):
    named = script(tmp_path / "named/nvcc", f'exec "{NVCC}" "$@"')
    build = tmp_path / "build"
    assert "building without" in configured(build, PATH=WITHOUT_NVCC).stdout
    # A compiler that appears later is found, from the variable before the path. It is kept when nothing names it any more.
    for env in ({"CUDACXX": named}, {"PATH": WITHOUT_NVCC}):
        done = configured(build, "-DUSE_CUDA=ON", **env)
        assert done.returncode == 0, done.stderr
        assert f"-- CUDA: {named} " in done.stdout
        assert "architectures 75-real;80-real" in done.stdout


@needs_nvcc
def test_a_wheel_with_cuda_is_small_and_needs_no_cuda(tmp_path):
    options = ["--no-deps", "--no-build-isolation", "-C", "cmake.define.USE_CUDA=ON"]
    checked(sys.executable, "-m", "pip", "wheel", *options, "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        models = sum(file.compress_size for file in archive.infolist() if file.filename.endswith(".onnx"))
        (core,) = [name for name in archive.namelist() if name.endswith(".so")]
        machine_code = archive.read(core)
    assert wheel.stat().st_size - models < 2_000_000
    assert b"75-real,80-real,86-real,89-real,90-real,100-real,120-real,120-virtual" in machine_code
    assert b"libcuda.so" in machine_code  # opened on demand,
    python, without = sharing(tmp_path / "venv"), {"PATH": WITHOUT_NVCC}
    checked(python, "-m", "pip", "install", "--no-deps", "--ignore-installed", wheel)
    where = checked(python, "-P", "-c", "from diffuse_fast import _core; print(_core.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path)
    assert "cuda" not in checked("ldd", where)  # and never linked
    why = checked(python, "-P", "-c", "from diffuse_fast import _core; print(_core.cuda_unavailable_reason())", cwd=tmp_path)
    assert "this build has no CUDA kernels" not in why
    # The tests that need only the package, on the installed one.
    tests = [ROOT / "tests" / name for name in ("kernels", "engine", "schedule", "plans", "test_model.py")]
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not slow", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml"]
    assert " passed" in checked(python, "-P", "-m", "pytest", *options, *tests, cwd=tmp_path, env=without)


def test_the_core_passes_its_own_tests(tmp_path):
    checked("cmake", "-S", ROOT, "-B", tmp_path, *CORE)
    checked("cmake", "--build", tmp_path, "--parallel", "2")
    assert " 0 failed checks" in checked(tmp_path / "tests/cpp/core_tests")


def test_neon_has_the_bits_of_x86(tmp_path):
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)")
    target = [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake/aarch64.cmake'}"]
    target += ["-DUSE_CUDA=OFF"]  # this machine's CUDA toolkit has no libraries for the other architecture
    checked("cmake", "-S", ROOT, "-B", tmp_path, *CORE, *target)
    checked("cmake", "--build", tmp_path, "--parallel", "2", "--target", "core_tests")
    # qemu 7 in user mode cannot start a thread after a fork.
    left_out = ["-network_fork_during_calls", "-pool_forked_child"]
    said = checked(emulator, "-L", "/usr/aarch64-linux-gnu", tmp_path / "tests/cpp/core_tests", *left_out)
    assert "ok     bits_are_those_of_the_table" in said and " 0 failed checks" in said


def test_an_editable_install_is_rebuilt_when_imported(tmp_path):
    tree, venv = tmp_path / "tree", tmp_path / "venv"
    tree.mkdir()
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    skipped = shutil.ignore_patterns("*.so", "__pycache__", "*.onnx")
    for name in ("csrc", "cmake", "diffuse_fast"):
        shutil.copytree(ROOT / name, tree / name, ignore=skipped)
    python = sharing(venv)
    options = ["-C", "editable.rebuild=true", "-C", "editable.verbose=false", "-C", "cmake.build-type=Debug"]
    checked(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", *options, "-e", tree)

    ask = [python, "-P", "-c", "import diffuse_fast._core as core; print(core.__file__, core.__doc__)"]
    before = checked(*ask, cwd=tmp_path)
    assert str(tree) in before or str(venv) in before
    source = tree / "csrc/bindings/module.cpp"
    source.write_text(source.read_text().replace("The compiled core of diffuse_fast", "Rebuilt"))
    assert "Rebuilt" not in before
    assert "Rebuilt" in checked(*ask, cwd=tmp_path)
