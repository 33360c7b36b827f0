"""The CUDA step compiled ahead of time: what can be said of it without a device. Skipped where there is no nvcc."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("compiled.json")
NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")

ARCHITECTURES = ["80", "90", pytest.param("100", marks=pytest.mark.slow), pytest.param("120", marks=pytest.mark.slow)]
COVERS = ["one_step", "one_step_noise", "multistep", "general"]
TYPES = {"DTypeE0ELS": "f32", "DTypeE1ELS": "f16", "DTypeE2ELS": "bf16", "AnyTypes": "any"}


def readable(mangled: str) -> str:
    for name in ("reduce_kernel", "normals_kernel", "settle_kernel"):
        if name in mangled:
            return name
    cover = COVERS[int(re.search(r"CoverE(\d)", mangled)[1])]
    return f"step {cover} {next(short for key, short in TYPES.items() if key in mangled)}"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """``compiled(architecture) -> (PTX by kernel, what ptxas says by kernel)``."""
    known: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def build(architecture):
        if architecture not in known:
            folder = tmp_path_factory.mktemp(f"sm_{architecture}")
            done = subprocess.run(
                [NVCC, "-std=c++20", "-O3", "-fmad=false", f"-arch=sm_{architecture}", "-Xptxas=-v", "--keep", "--keep-dir", folder,
                 f"-I{ROOT / 'csrc'}", '-DDF_CUDA_ARCHITECTURES="80"', "-c", ROOT / "csrc/step/step_cuda.cu",
                 "-o", folder / "out.o"],
                capture_output=True, text=True, timeout=280,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            assert "warning" not in done.stderr, done.stderr[-3000:]
            ptx = next(folder.glob("*.ptx")).read_text()
            entries = re.findall(r"\.entry (\w+)\((.*?\n\})", ptx, re.S)
            reports = re.findall(r"Compiling entry function '(\w+)'.*?\n(.*?Used [^\n]*)", done.stderr, re.S)
            known[architecture] = ({readable(n): body for n, body in entries}, {readable(n): said for n, said in reports})
        return known[architecture]

    return build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_spills(compiled, architecture):
    ptx, reports = compiled(architecture)
    assert set(ptx) == set(reports) and len(reports) == 14
    for name, said in reports.items():
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said, (name, said)
        assert ".local" not in ptx[name], name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_arithmetic_is_exact_and_loads_are_coherent(compiled, architecture):
    ptx, _ = compiled(architecture)
    for name, body in ptx.items():
        for forbidden in (".approx", ".ftz", ".full", "ld.global.nc", ".nc."):
            assert forbidden not in body, (name, forbidden)
        if name.startswith("step"):
            assert "div." not in body, name
        if name.startswith("step") and "one_step " not in name and "multistep" not in name:
            assert "sqrt.rn.f32" in body, name  # the noise


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_accesses_have_128_bits(compiled, architecture):
    ptx, _ = compiled(architecture)
    for name, body in ptx.items():
        if name.startswith("step"):
            # The general kernel's addresses are generic: it chooses among tensors when it runs.
            assert re.search(r"\bld(\.global)?\.v4\.[bfu]32", body), name
            assert re.search(r"\bst(\.global)?\.v4\.[bfu]32", body), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_are_those_of_the_table(compiled, architecture):
    table = json.loads(TABLE.read_text())
    version = re.search(r"V(\d[\d.]*)", subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout)[1]
    if version != table["nvcc"]:
        pytest.skip(f"the table is of nvcc {table['nvcc']}; this is {version}")
    ptx, reports = compiled(architecture)
    registers = {name: int(re.search(r"Used (\d+) registers", said)[1]) for name, said in reports.items()}
    got = {name: [count, len(re.findall(r";\n", ptx[name]))] for name, count in registers.items()}
    assert got == table["registers and PTX instructions"][f"sm_{architecture}"]
