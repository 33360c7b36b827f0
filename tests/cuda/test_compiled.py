"""The CUDA step compiled ahead of time: properties of the code that need no device. Skipped without nvcc.

``python tests/cuda/test_compiled.py`` rewrites compiled.json, after a change of the kernels or of nvcc's version.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("compiled.json")
NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")

ARCHITECTURES = ["80", "90", pytest.param("100", marks=pytest.mark.slow), pytest.param("120", marks=pytest.mark.slow)]
TERM_SETS = ["one_step", "one_step_noise", "multistep", "general"]
TYPES = {"DTypeE0ELS": "f32", "DTypeE1ELS": "f16", "DTypeE2ELS": "bf16", "AnyTypes": "any"}


def readable(mangled: str) -> str:
    for name in ("reduce_kernel", "normals_kernel", "settle_kernel"):
        if name in mangled:
            return name
    term_set = TERM_SETS[int(re.search(r"TermSetE(\d)", mangled)[1])]
    return f"step {term_set} {next(short for key, short in TYPES.items() if key in mangled)}"


@dataclass(frozen=True)
class Compiled:
    """One architecture: PTX by kernel, ptxas's report by kernel, and the machine code."""

    ptx: dict[str, str]
    said: dict[str, str]
    cubin: bytes

    @property
    def figures(self) -> dict[str, list[int]]:
        """The figures in compiled.json: registers and PTX instructions."""
        registers = {name: int(re.search(r"Used (\d+) registers", said)[1]) for name, said in self.said.items()}
        return {name: [count, len(re.findall(r";\n", self.ptx[name]))] for name, count in registers.items()}

    @functools.cached_property
    def sass(self) -> dict[str, collections.Counter]:
        """The number of times that each instruction occurs in each kernel."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            listing = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=True).stdout
        instruction = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", re.M)
        parts = re.split(r"^\.text\.(\w+):$", listing, flags=re.M)
        bodies = zip(parts[1::2], parts[2::2], strict=True)
        return {readable(name): collections.Counter(instruction.findall(body)) for name, body in bodies}


def disassembler() -> str | None:
    """nvdisasm, from the toolkit or from triton."""
    triton = importlib.util.find_spec("triton")
    folders = [None, str(Path(triton.origin).parent / "backends/nvidia/bin")] if triton else [None]
    return next((found for folder in folders if (found := shutil.which("nvdisasm", path=folder))), None)


def nvcc_version() -> str:
    return re.search(r"V(\d[\d.]*)", subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout)[1]


@functools.cache
def compiled(architecture: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [NVCC, "-std=c++20", "-O3", "-fmad=false", f"-arch=sm_{architecture}", "-Xptxas=-v", "--keep", "--keep-dir", folder,
             f"-I{ROOT / 'csrc'}", '-DDF_CUDA_ARCHITECTURES="80"', "-c", ROOT / "csrc/step/cuda/step.cu", "-o", f"{folder}/out.o"],
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert "warning" not in done.stderr, done.stderr[-3000:]
        ptx, cubin = next(Path(folder).glob("*.ptx")).read_text(), next(Path(folder).glob("*.cubin")).read_bytes()
    entries = re.findall(r"\.entry (\w+)\((.*?\n\})", ptx, re.S)
    said = re.findall(r"Compiling entry function '(\w+)'.*?\n(.*?Used [^\n]*)", done.stderr, re.S)
    return Compiled({readable(n): body for n, body in entries}, {readable(n): words for n, words in said}, cubin)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_spills(architecture):
    built = compiled(architecture)
    assert set(built.ptx) == set(built.said) and len(built.said) == 14
    for name, said in built.said.items():
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said, (name, said)
        assert ".local" not in built.ptx[name], name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_arithmetic_is_exact_and_loads_are_coherent(architecture):
    for name, body in compiled(architecture).ptx.items():
        for forbidden in (".approx", ".ftz", ".full", "ld.global.nc", ".nc."):
            assert forbidden not in body, (name, forbidden)
        if name.startswith("step"):
            assert "div." not in body, name
        if name.startswith("step") and "one_step " not in name and "multistep" not in name:
            assert "sqrt.rn.f32" in body, name  # the noise


@pytest.mark.skipif(disassembler() is None, reason="nvdisasm is not installed (it comes with the CUDA toolkit and with triton)")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_accesses_have_128_bits(architecture):
    """Each access of the loop over the last single elements has a 128-bit counterpart in the loop over the body.

    Both loops are the same source; a thread of the first has four elements, or eight where a tensor may have 16 bits.
    """
    sass = compiled(architecture).sass
    assert len(sass) == 14
    for name, counts in sass.items():
        assert not [instruction for instruction in counts if instruction.startswith(("LDL", "STL"))], name
        if name.startswith("step"):
            of_float32 = 1 if name.endswith("f32") else 2
            for narrow in ("LD.E", "ST.E"):
                single, half = counts[narrow], counts[f"{narrow}.U16"]
                wide = counts[f"{narrow}.128"] + counts[f"{narrow.replace('.', 'G.')}.128"]
                assert wide == of_float32 * single + half > 0, (name, narrow, counts)
    assert (sass["normals_kernel"]["STG.E.128"], sass["normals_kernel"]["STG.E"]) == (1, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_are_those_of_the_table(architecture):
    table = json.loads(TABLE.read_text())
    if (version := nvcc_version()) != table["nvcc"]:
        pytest.skip(f"the table is of nvcc {table['nvcc']}; this is {version}")
    assert compiled(architecture).figures == table["registers and PTX instructions"][f"sm_{architecture}"]


def _record() -> None:
    table = {f"sm_{number}": dict(sorted(compiled(number).figures.items())) for number in ("80", "90", "100", "120")}
    text = json.dumps({"nvcc": nvcc_version(), "registers and PTX instructions": table}, indent=2)
    TABLE.write_text(re.sub(r"\[\n\s+(\d+),\n\s+(\d+)\n\s+\]", r"[\1, \2]", text) + "\n")


if __name__ == "__main__":
    _record()
