"""The verdicts and the page, on made-up figures with a known result."""

from __future__ import annotations

import json

import pytest

from bench import page, page_cases
from bench.measure import Timing
from bench.report import Line
from bench.targets import verdicts

AVX512 = {"instruction_sets": ["avx2", "avx512f"]}


def _line(name, rounds, *, network="cifar10", batch=1, precision="float32", ours=False, error_of_call=1e-7):
    job = {"network": network, "batch": batch, "steps": 2, "threads": 1, "precision": precision, "ours": ours}
    middle = sorted(rounds)[len(rounds) // 2]
    return Line(
        name, seconds=Timing(min(rounds), middle, max(rounds)), job=job, rounds=rounds, error=1e-6, error_of_call=error_of_call
    ).to_json()


def _by_what(found):
    return {v.what: v for v in found}


def test_a_ratio_is_per_round_and_to_the_fastest_exact_peer():
    # The machine was twice as slow in the second round: within a round the peer always takes three times as long.
    lines = [
        _line("diffuse_fast", [1.0, 2.0, 1.0], network="digits", ours=True),
        _line("torch loop", [3.0, 6.0, 3.0], network="digits"),
        _line("slow", [9.0, 9.0, 9.0], network="digits"),
        _line("fast but bf16", [0.5, 0.5, 0.5], network="digits", precision="bfloat16"),
    ]
    found = _by_what(verdicts({"small": lines}, AVX512))
    best = found["digits, batch 1, over the best float32 peer"]
    assert (best.measured, best.met, best.note) == (3.0, True, "diffuse_fast over torch loop, 3 .. 3")
    assert found["digits, batch 1, over torch eager"].met is False
    compiled = found["digits, batch 1, over torch.compile"]
    assert (compiled.measured, compiled.met) == (None, None)


def test_the_best_peer_is_the_one_whose_ratio_is_the_least():
    """By medians it would be the first, which had its luck in other rounds than ours."""
    lines = [
        _line("diffuse_fast", [1.0, 1.0, 2.0, 2.0, 2.0], network="digits", batch=16, ours=True),
        _line("lucky", [1.4, 1.4, 1.5, 3.0, 3.0], network="digits", batch=16),
        _line("steady", [1.2, 1.2, 2.2, 2.2, 2.2], network="digits", batch=16),
    ]
    best = _by_what(verdicts({"small": lines}, AVX512))["digits, batch 16, over the best float32 peer"]
    assert (best.measured, best.note) == (pytest.approx(1.1), "diffuse_fast over steady, 1.1 .. 1.2")


def test_a_runtime_in_a_loop_by_hand_is_stated_beside_what_is_a_target():
    lines = [
        _line("diffuse_fast", [1.0] * 3, network="policy", ours=True),
        _line("OpenVINO + diffusers", [1.4] * 3, network="policy"),
        _line("OpenVINO loop", [1.05] * 3, network="policy"),
    ]
    found = _by_what(verdicts({"tiny": lines}, AVX512))
    target, stated = (found[f"policy, batch 1, over the best float32 peer{more}"] for more in ("", ", loops by hand among them"))
    assert (target.measured, target.met) == (1.4, True)
    assert (stated.measured, stated.target) == (1.05, None)


def test_a_peer_with_shortcuts_is_held_to_what_is_exact_and_to_what_has_them_too():
    lines = [
        _line("diffuse_fast", [4.0] * 3, network="unet28", batch=16, ours=True),
        _line("diffuse_fast, float32-fast", [2.0] * 3, network="unet28", batch=16, precision="float32-fast", ours=True),
        _line("shortcuts", [3.0] * 3, network="unet28", batch=16, error_of_call=3e-4),
        {**_line("exact", [5.0] * 3, network="unet28", batch=16), "share": 0.9},
    ]
    found = _by_what(verdicts({"small": lines}, AVX512))
    of = {what.removeprefix("unet28, batch 16, over "): (v.measured, v.met) for what, v in found.items()}
    assert of["the best float32 peer"] == (0.75, False)
    assert of["the best peer that is exact to rounding"] == (1.25, True)
    assert of["the best float32 peer, in float32-fast"] == (1.5, True)


def test_what_misses_says_what_the_limit_would_make_of_it():
    """Ours takes 1 s, of which the limit is 0.75 s; the peer takes 1.5 s."""
    ours = {**_line("diffuse_fast", [1.0] * 3, network="unet28", ours=True), "share": 0.75}
    lines = [ours, _line("torch loop", [1.5] * 3, network="unet28")]
    note = _by_what(verdicts({"small": lines}, AVX512))["unet28, batch 1, over torch eager"].note
    assert note == "diffuse_fast over torch loop, 1.5 .. 1.5; the limit itself is 2x"


def test_the_fastest_precision_must_keep_its_error():
    lines = [
        _line("diffuse_fast", [4.0] * 3, ours=True),
        _line("diffuse_fast, bfloat16", [2.0] * 3, precision="bfloat16", ours=True, error_of_call=0.01),
        _line("diffuse_fast, int8", [1.0] * 3, precision="int8", ours=True, error_of_call=0.2),
        _line("torch loop", [10.0] * 3),
        _line("diffusers, bf16", [3.0] * 3, precision="bfloat16"),
    ]
    found = _by_what(verdicts({"medium": lines}, AVX512))
    eager = found["cifar10, batch 1, over torch eager, the fastest precision under 5 % error"]
    assert (eager.measured, eager.met) == (5.0, True)
    assert found["cifar10, batch 1, over the best bf16 peer, the fastest precision under 5 % error"].measured == 1.5


def test_what_was_tuned_is_held_to_the_best_single_choice():
    lines = [
        _line("diffuse_fast", [4.0] * 3, network="digits", ours=True),
        _line("diffuse_fast, openvino", [1.9] * 3, network="digits", ours=True),
        _line("diffuse_fast, bfloat16", [1.0] * 3, network="digits", ours=True, precision="bfloat16"),
        _line("diffuse_fast, tuned", [2.0] * 3, network="digits", ours=True),
        _line("torch loop", [8.0] * 3, network="digits"),
    ]
    found = _by_what(verdicts({"small": lines}, AVX512))
    single = found["digits, batch 1, over the best single choice of ours"]
    assert (single.measured, single.met) == (0.95, False)
    assert single.note == "diffuse_fast, tuned over diffuse_fast, openvino, 0.95 .. 0.95"
    assert found["digits, batch 1, over torch eager"].measured == 4.0
    untuned = _by_what(verdicts({"small": [lines[0], lines[4]]}, AVX512))
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

    found = verdicts({"step_sizes": [*pair(10, 20.0), *pair(1000, 6.0)]}, {"instruction_sets": sets})
    steps = [v for v in found if "over diffusers" in v.what]
    assert [(v.measured, v.note, v.met) for v in steps] == [(6.0, "at 1,000 elements", met)] * 2


def test_a_start_and_a_size_must_be_small():
    start = Line("first digit", seconds=Timing(0.5, 0.7, 0.8), limit=0.6).to_json()
    size = Line("production", value=150.0, unit="MB", limit=200.0).to_json()
    assert [v.met for v in verdicts({"start": [start], "installation": [size]}, AVX512)] == [False, True]


def test_a_start_that_is_not_known_is_not_missed():
    gone = Line("first digit", limit=0.6, note="left out: no index").to_json()
    (verdict,) = verdicts({"start": [gone]}, AVX512)
    assert (verdict.measured, verdict.met, verdict.note) == (None, None, "no index")


def test_a_size_that_is_not_known_is_not_missed():
    gone = Line("production", limit=200.0, note="left out: no index").to_json()
    (verdict,) = verdicts({"installation": [gone]}, AVX512)
    assert (verdict.met, verdict.note) == (None, "no index")
    assert list(page_cases.installation([gone]))[-1] == "| production |  | left out: no index |"


def test_training_is_shown_beside_whom_it_is_held_to():
    def trained(name, seconds):
        return Line(name, seconds=Timing(seconds, seconds, 2 * seconds), value=64 / seconds, unit="images/s").to_json()

    ratio = Line("diffuse_fast over diffusers, 2 threads", ratio=Timing(0.4, 0.5, 0.6), peer="diffusers", limit=1.0).to_json()
    gone = Line("denoising-diffusion-pytorch, 2 threads", note="left out: not installed").to_json()
    lines = [trained("diffuse_fast, 2 threads", 0.5), trained("diffusers, 2 threads", 1.0), ratio, gone]
    assert list(page_cases.training(lines))[-3:] == [
        "| **diffuse_fast** | 2 | 128 | 500 | 500 .. 1000 |  |  |",
        "| diffusers | 2 | 64 | 1000 | 1000 .. 2000 | 0.50 | met |",
        "| denoising-diffusion-pytorch | 2 | | | | | left out: not installed |",
    ]


def test_graphs_and_growth_are_shown_side_by_side():
    some = Timing(0.001, 0.002, 0.003)
    lines = [
        Line("batch 16: onnx", seconds=some).to_json(),
        Line("batch 16: onnx, the file", seconds=Timing(0.003, 0.004, 0.005), ratio=Timing(1.9, 2.0, 2.1), peer="onnx").to_json(),
    ]
    row = "| 16 | onnx | 2 | 1 .. 3 | the file | 4 | 3 .. 5 | 2.00x |"
    assert list(page_cases.graphs(lines))[-1] == row
    growing = []
    for axis, network, batch in (("samples", "digits", 1), ("samples", "digits", 4), ("resolution", "unet16", 1)):
        line = Line("diffuse_fast", seconds=some)
        job = {"network": network, "batch": batch, "steps": 5, "threads": 1, "axis": axis}
        growing.append({**line.to_json(), "job": job})
    growing.append({"name": "gone", "note": "left out", "job": {**growing[0]["job"]}})
    text = list(page_cases.growth(growing))
    assert "Milliseconds for all samples, by samples (digits, steps 5, threads 1):" in text
    assert "| | 1 | 4 |" in text and "| **diffuse_fast** | 2 | 2 |" in text and "| gone |  |  |" in text
    assert "Milliseconds for all samples, by resolution (batch 1, steps 5, threads 1):" in text and "| | 16 |" in text


def test_the_page_names_who_is_left_out(tmp_path, monkeypatch):
    job = {"network": "mlp", "batch": 1, "steps": 50, "threads": 1, "precision": "float32", "ours": False}
    gone = Line("MNN + diffusers", job=job, note="left out: no module named MNN").to_json()
    lines = [_line("diffuse_fast", [1.0] * 5, network="mlp", ours=True), _line("torch loop", [7.0] * 5, network="mlp")]
    lines = [{**line, "job": {**line["job"], "steps": 50}} for line in lines]
    machine = {
        "processor": "a machine", "instruction_sets": ["avx2"], "caches": {"L1": "32K"}, "versions": {"numpy": "2"},
        "python": "3.11", "commit": "abc",
    }  # fmt: skip
    limit = {"threads": 1, "multiply_adds": 5e10, "multiply_adds_bf16": 1e11, "multiply_adds_int8": 2e11, "bandwidth": 2e10}
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    run = {"machine": machine, "limits": [limit], "took": {"tiny": 90.0, "loop": 10.0}, "cases": {"tiny": [*lines, gone]}}
    (tmp_path / "results" / "here.json").write_text(json.dumps(run))
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "DOCS", tmp_path / "docs")
    page.main()
    text = (tmp_path / "docs" / "benchmarks" / "here.md").read_text()
    assert "Left out: MNN + diffusers (no module named MNN)." in text
    assert "| duration | 2 minutes: tiny 1.5 |" in text
    assert "| case | target | 1 thread |" in text
    assert "| mlp, batch 1, over the torch loop | at least 6x | 7x **met**<br>diffuse_fast over torch loop, 7 .. 7 |" in text
    front = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "[here](benchmarks/here.md)" in front
    assert "| a machine, `here` | MLP, 2-D points |" in front and "| torch | 140 |" in front
    assert (tmp_path / "docs" / "images" / "bench-peers-here.png").stat().st_size > 1000
