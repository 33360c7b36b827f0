"""The Triton kernels compiled ahead of time: their PTX and SASS, and the figures of compiled.json. No GPU is needed.

``python tests/triton/test_ahead_of_time.py`` rewrites compiled.json, after a change of the kernels or of triton's version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: nothing is compiled", allow_module_level=True)

HERE = Path(__file__).parent
TABLE = HERE / "compiled.json"
ARCHITECTURES = (80, 90, 100, 120)
USUAL = {(name, kernel, sm) for name, kernel in (("general", "step"), ("ddim", "step"), ("ddpm", "step")) for sm in (80, 90)}


CASES = {name: tuple(kernels) for name, kernels in json.loads(TABLE.read_text())["kernels"].items()}
EVERY = [(name, kernel, sm) for name, kernels in CASES.items() for kernel in kernels for sm in ARCHITECTURES]


@pytest.mark.parametrize(
    ("name", "kernel", "sm"), [pytest.param(*case, marks=() if case in USUAL else pytest.mark.slow) for case in EVERY]
)
class TestCompiled:
    def test_nothing_is_spilled(self, name, kernel, sm, ahead_of_time):
        built = ahead_of_time.compiled(name, kernel, sm)
        assert (built.stack, built.local) == (0, 0)
        assert built.count("LDL") == built.count("STL") == 0

    def test_no_instruction_is_approximate(self, name, kernel, sm, ahead_of_time):
        ptx = ahead_of_time.compiled(name, kernel, sm).ptx
        assert re.search(rf"\.target sm_{sm}", ptx)
        assert re.findall(r"^.*\.(?:approx|ftz|full)\b.*$", ptx, re.MULTILINE) == []
        # Every product and sum in float32 rounds to nearest, and is fused only where the source says fma.
        assert set(re.findall(r"\b(?:fma|mul|add|sub|sqrt|div)\.(?:\w+\.)*f32", ptx)) <= {
            f"{name}.rn.f32" for name in ("fma", "sqrt")
        } | {f"{name}{rounding}.f32" for name in ("mul", "add", "sub") for rounding in ("", ".rn")}

    def test_accesses_are_128_bits_wide(self, name, kernel, sm, ahead_of_time):
        built, case = ahead_of_time.compiled(name, kernel, sm), ahead_of_time.CASES[name]
        if kernel != "step":
            pytest.skip("only the step's accesses are counted for every case")
        assert (built.count("LDG.E.128"), built.count("STG.E.128")) == ahead_of_time.wide_accesses(case)

    def test_a_thread_without_a_barrier_writes_only_what_it_has_read(self, name, kernel, sm, ahead_of_time):
        if kernel == "step" and ahead_of_time.launches_of(ahead_of_time.CASES[name])[kernel][1]["PRIVATE"]:
            assert "ttg.convert_layout" not in ahead_of_time.compiled(name, kernel, sm).ttgir

    def test_figures_are_those_recorded(self, name, kernel, sm, ahead_of_time):
        recorded = json.loads(TABLE.read_text())
        installed = importlib.metadata.version("triton")
        if installed != recorded["triton"]:
            pytest.skip(f"the figures are triton {recorded['triton']}'s; {installed} is installed")
        assert ahead_of_time.figures(name, kernel, sm) == recorded["kernels"][name][kernel][f"sm_{sm}"]


def test_noise_uses_the_square_root_rounded_to_nearest(ahead_of_time):
    assert ahead_of_time.compiled("ddpm", "step", 90).ptx.count("sqrt.rn.f32") == 4  # eight normals a thread, two to a root
    assert "sqrt" not in ahead_of_time.compiled("ddim", "step", 90).ptx


def test_the_forward_process_reads_and_writes_each_element_once(ahead_of_time):
    built = ahead_of_time.compiled("forward", "forward", 90)
    # Eight elements a thread, four to an access: x0 is read, x_t and the target are written.
    assert (built.count("LDG.E.128"), built.count("STG.E.128")) == (2, 4)
    assert built.ptx.count("sqrt.rn.f32") == 4


@pytest.mark.slow
def test_bfloat16_is_rounded_to_nearest_even(ahead_of_time):
    assert "cvt.rn.bf16x2.f32" in ahead_of_time.compiled("ddpm, bfloat16", "step", 90).ptx


def test_the_recorded_table_names_every_case(ahead_of_time):
    assert {name: set(case.launches) for name, case in ahead_of_time.CASES.items()} == {n: set(k) for n, k in CASES.items()}


def _record() -> None:
    sys.path.insert(0, str(HERE))
    import ahead_of_time

    table = {
        name: {kernel: {f"sm_{sm}": ahead_of_time.figures(name, kernel, sm) for sm in ARCHITECTURES} for kernel in case.launches}
        for name, case in ahead_of_time.CASES.items()
    }
    text = json.dumps({"triton": importlib.metadata.version("triton"), "kernels": table}, indent=1)
    TABLE.write_text(re.sub(r"\{\n\s+(\"registers\": \d+),\n\s+(\"instructions\": \d+)\n\s+\}", r"{\1, \2}", text) + "\n")


if __name__ == "__main__":
    _record()
