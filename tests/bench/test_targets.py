"""The judge and the page, on figures made up so that what must come out is known."""

from __future__ import annotations

import json

import pytest

from bench import page
from bench.measure import Timing
from bench.report import Line
from bench.targets import judge

AVX512 = {"instruction_sets": ["avx2", "avx512f"]}


def _line(name, rounds, *, network="cifar10", batch=1, precision="float32", ours=False, error_of_call=1e-7):
    job = {"network": network, "batch": batch, "steps": 2, "threads": 1, "precision": precision, "ours": ours}
    middle = sorted(rounds)[len(rounds) // 2]
    return Line(
        name, seconds=Timing(min(rounds), middle, max(rounds)), job=job, rounds=rounds, error=1e-6, error_of_call=error_of_call
    ).to_json()


def _by_what(verdicts):
    return {v.what: v for v in verdicts}


def test_a_ratio_is_taken_within_rounds_and_against_the_fastest_exact_peer():
    # The machine was twice as slow in the second round: within a round the peer always takes three times as long.
    lines = [
        _line("diffuse_fast", [1.0, 2.0, 1.0], network="digits", ours=True),
        _line("torch loop", [3.0, 6.0, 3.0], network="digits"),
        _line("slow", [9.0, 9.0, 9.0], network="digits"),
        _line("fast but bf16", [0.5, 0.5, 0.5], network="digits", precision="bfloat16"),
    ]
    verdicts = _by_what(judge({"small": lines}, AVX512))
    best = verdicts["digits, batch 1, over the best float32 peer"]
    assert (best.measured, best.met, best.note) == (3.0, True, "diffuse_fast over torch loop")
    assert verdicts["digits, batch 1, over torch eager"].met is False
    compiled = verdicts["digits, batch 1, over torch.compile"]
    assert (compiled.measured, compiled.met) == (None, None)


def test_the_fastest_precision_must_keep_its_error():
    lines = [
        _line("diffuse_fast", [4.0] * 3, ours=True),
        _line("diffuse_fast, bfloat16", [2.0] * 3, precision="bfloat16", ours=True, error_of_call=0.01),
        _line("diffuse_fast, int8", [1.0] * 3, precision="int8", ours=True, error_of_call=0.2),
        _line("torch loop", [10.0] * 3),
        _line("diffusers, bf16", [3.0] * 3, precision="bfloat16"),
    ]
    verdicts = _by_what(judge({"medium": lines}, AVX512))
    eager = verdicts["cifar10, batch 1, over torch eager, the fastest precision under 5 % error"]
    assert (eager.measured, eager.met) == (5.0, True)
    assert verdicts["cifar10, batch 1, over the best bf16 peer, the fastest precision under 5 % error"].measured == 1.5


def test_what_was_tuned_is_held_to_the_best_single_choice():
    lines = [
        _line("diffuse_fast", [4.0] * 3, network="digits", ours=True),
        _line("diffuse_fast, openvino", [1.9] * 3, network="digits", ours=True),
        _line("diffuse_fast, bfloat16", [1.0] * 3, network="digits", ours=True, precision="bfloat16"),
        _line("diffuse_fast, tuned", [2.0] * 3, network="digits", ours=True),
        _line("torch loop", [8.0] * 3, network="digits"),
    ]
    verdicts = _by_what(judge({"small": lines}, AVX512))
    single = verdicts["digits, batch 1, over the best single choice of ours"]
    assert (single.measured, single.met, single.note) == (0.95, False, "diffuse_fast, tuned over diffuse_fast, openvino")
    assert verdicts["digits, batch 1, over torch eager"].measured == 4.0
    untuned = _by_what(judge({"small": [lines[0], lines[4]]}, AVX512))
    assert "digits, batch 1, over the best single choice of ours" not in untuned


@pytest.mark.parametrize(("sets", "met"), [(["avx2"], True), (["avx2", "avx512f"], False)])
def test_the_step_is_held_to_what_its_machine_has(sets, met):
    def pair(elements, ratio):
        job = {"elements": elements, "noise": False, "threads": 1}
        noisy = {**job, "noise": True}
        some = Timing(1.0, 1.0, 1.0)
        return [
            *(Line("df", seconds=some, job={**j, "ours": True}, share=0.9).to_json() for j in (job, noisy)),
            *(Line("theirs", seconds=some, ratio=Timing(ratio, ratio, ratio), job={**j, "ours": False}).to_json()
              for j in (job, noisy)),
        ]  # fmt: skip

    verdicts = judge({"step_sizes": [*pair(10, 20.0), *pair(1000, 6.0)]}, {"instruction_sets": sets})
    steps = [v for v in verdicts if "over diffusers" in v.what]
    assert [(v.measured, v.note, v.met) for v in steps] == [(6.0, "at 1,000 elements", met)] * 2


def test_a_start_and_a_size_must_be_small():
    start = Line("first digit", seconds=Timing(0.5, 0.7, 0.8), limit=0.6).to_json()
    size = Line("production", value=150.0, unit="MB", limit=200.0).to_json()
    assert [v.met for v in judge({"start": [start], "installation": [size]}, AVX512)] == [False, True]


def test_the_page_names_who_is_left_out(tmp_path, monkeypatch):
    job = {"network": "mlp", "batch": 1, "steps": 50, "threads": 1, "precision": "float32", "ours": False}
    gone = Line("MNN + diffusers", job=job, note="left out: no module named MNN").to_json()
    lines = [_line("diffuse_fast", [1.0] * 5, network="mlp", ours=True), _line("torch loop", [7.0] * 5, network="mlp")]
    lines = [{**line, "job": {**line["job"], "steps": 50}} for line in lines]
    machine = {
        "processor": "a machine", "instruction_sets": ["avx2"], "caches": {"L1": "32K"}, "versions": {"numpy": "2"},
        "python": "3.11", "commit": "abc",
    }  # fmt: skip
    limit = {"threads": 1, "multiply_adds": 5e10, "multiply_adds_bf16": 1e11, "bandwidth": 2e10}
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    run = {"machine": machine, "limits": [limit], "cases": {"tiny": [*lines, gone]}}
    (tmp_path / "results" / "here.json").write_text(json.dumps(run))
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "DOCS", tmp_path / "docs")
    page.main()
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "Left out: MNN + diffusers (no module named MNN)." in text
    assert "| case | target | here, 1 thread |" in text
    assert "| mlp, batch 1, over the torch loop | at least 6x | 7x **met**<br>diffuse_fast over torch loop |" in text
    assert (tmp_path / "docs" / "images" / "bench-peers-here.png").stat().st_size > 1000
