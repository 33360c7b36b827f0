"""Compare the figures of a run with the project's targets: ratios within the run, with one thread and with two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from .report import digits

Cases = dict[str, list[dict[str, Any]]]

TUNED = "diffuse_fast, tuned"
OURS = (TUNED, "diffuse_fast")  # the first that the run has: what `tune` chose, else what is chosen without it
COMPILED = ("torch.compile", "torch.compile, freezing")
BY_HAND = ("onnxruntime loop", "OpenVINO loop")  # more than their documentation shows: stated beside what is a target
ERROR_LIMIT = 0.05  # of a call, for "the fastest precision"
ROUNDING = 1e-5  # of a call: what is off by more takes shortcuts, and counts as float32 all the same where its manual says so
STEP_TARGETS = {"avx512f": 8.0, "avx2": 5.0}
NEVER_SLOWER = 0.97  # "never slower than 3 %"


@dataclass(frozen=True)
class Verdict:
    """One line of the table.

    Attributes:
        what: The case and the peer.
        threads: Number of threads; None if irrelevant.
        target: A lower bound (``least``) or an upper bound; None if the figure is only reported.
        measured: The figure; None if the run has none, for the reason in ``note``.
    """

    what: str
    threads: int | None
    target: float | None
    measured: float | None
    unit: str = "x"
    least: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None or self.measured is None:
            return None
        return self.measured >= self.target if self.least else self.measured <= self.target


def verdicts(cases: Cases, machine: dict[str, Any]) -> list[Verdict]:
    """The verdicts on the cases of a run; cases that were not run have none."""
    out: list[Verdict] = []
    if "step_sizes" in cases:
        out += _steps(cases["step_sizes"], machine["instruction_sets"])
    drawn = [line for name in ("tiny", "small", "medium") for line in cases.get(name, ())]
    for key in dict.fromkeys(_key(line) for line in drawn):
        out += _drawn(*key, [line for line in drawn if _key(line) == key])
    out += _start(cases.get("start", ()))
    for line in cases.get("installation", ()):
        out.append(Verdict(f"installation, {line['name']}", None, line.get("limit"), line.get("value"), "MB", False, _why(line)))
    return out


def _key(line: dict[str, Any]) -> tuple[str, int, int, int]:
    job = line["job"]
    return job["network"], job["batch"], job["steps"], job["threads"]


def _steps(lines: list[dict[str, Any]], instruction_sets: list[str]) -> Iterator[Verdict]:
    target = next((target for name, target in STEP_TARGETS.items() if name in instruction_sets), None)
    for threads in dict.fromkeys(line["job"]["threads"] for line in lines):
        here = [line for line in lines if line["job"]["threads"] == threads]
        for noise in (False, True):
            peers = [line for line in here if not line["job"]["ours"] and line["job"]["noise"] == noise]
            worst = min(peers, key=lambda line: line["ratio"]["median"])
            what = f"the step alone, {'with' if noise else 'without'} noise, over diffusers' step: the least of all sizes"
            note = f"at {worst['job']['elements']:,} elements"
            yield Verdict(what, threads, target, worst["ratio"]["median"], note=note)
        ours = [line for line in here if line["job"]["ours"] and not line["job"]["noise"]]
        largest = max(ours, key=lambda line: line["job"]["elements"])
        note = f"at {largest['job']['elements']:,} elements"
        yield Verdict("the step alone, of the copy bandwidth", threads, 80.0, 100 * largest["share"], "%", note=note)


def _drawn(network: str, batch: int, steps: int, threads: int, lines: list[dict[str, Any]]) -> Iterator[Verdict]:
    timed = {line["name"]: line for line in lines if line.get("rounds")}
    ours = next((timed[name] for name in OURS if name in timed), None)
    if ours is None:
        return
    peers = [line for line in timed.values() if not line["job"]["ours"]]
    float32 = [line for line in peers if line["job"]["precision"] == "float32"]
    exact = [line for line in float32 if line["name"] not in BY_HAND]

    def over(label: str, target: float | None, among: list[dict[str, Any]], mine: dict[str, Any] = ours) -> Verdict:
        what = f"{network}, batch {batch}, over {label}"
        best = min(among, key=lambda line: _ratio(line, mine), default=None)
        if best is None:
            return Verdict(what, threads, target, None, note="no such peer ran here")
        ratio, (low, high) = _ratio(best, mine), _spread(best, mine)
        note = f"{mine['name']} over {best['name']}, {low:.3g} .. {high:.3g}"
        if target is not None and ratio < target and "share" in mine and not best["job"]["ours"]:
            note += f"; the limit itself is {_median(best) / (mine['share'] * _median(mine)):.2g}x"
        return Verdict(what, threads, target, ratio, note=note)

    def named(*names: str) -> list[dict[str, Any]]:
        return [timed[name] for name in names if name in timed]

    single = [line for line in timed.values() if line["job"]["ours"] and line["job"]["precision"] == "float32" and line is not ours]
    if ours["name"] == TUNED and single:
        yield over("the best single choice of ours", NEVER_SLOWER, single)
    if network == "mlp":
        yield over("torch + diffusers", 25.0, named("diffusers"))
        yield over("the torch loop", 6.0, named("torch loop"))
        yield over("onnxruntime + diffusers", 18.0, named("onnxruntime + diffusers"))
        yield over("onnxruntime with a loop by hand", 4.0, named("onnxruntime loop"))
    elif network == "policy":
        yield over("torch + diffusers", None, named("diffusers"))
        yield over("the best float32 peer", 1.1, exact)
        yield over("OpenVINO with a loop by hand", 1.3, named("OpenVINO loop"))
    elif network == "cifar10":
        yield over("the best float32 peer", NEVER_SLOWER, exact)
        # The fastest of ours whose error is small enough; float32 is one of them.
        allowed = [line for line in timed.values() if line["job"]["ours"] and line["error_of_call"] < ERROR_LIMIT]
        fastest = min(allowed, key=_median)
        yield over("torch eager, the fastest precision under 5 % error", 4.5, named("torch loop"), fastest)
        bf16 = [line for line in peers if line["job"]["precision"] == "bfloat16"]
        yield over("the best bf16 peer, the fastest precision under 5 % error", 1.3, bf16, fastest)
    else:
        if batch == 1:
            yield over("torch eager", 8.0 if network == "digits" and threads == 1 else 5.0, named("torch loop"))
            yield over("torch.compile", 2.5, named(*COMPILED))
        if (network, batch, threads) == ("digits", 64, 2):
            yield over("torch + diffusers", 3.0, named("diffusers"))
        yield from _small(over, 1.15 if batch == 1 else 1.0, exact, timed.get("diffuse_fast, float32-fast"))
    if len(float32) > len(exact):
        by_hand = 1.9 if (network, batch, threads) == ("digits", 1, 1) else None
        yield over("the best float32 peer, loops by hand among them", by_hand, float32)


def _small(over: Callable[..., Verdict], target: float, peers: list[dict[str, Any]], fast: Any) -> Iterator[Verdict]:
    """Compare with the best float32 peer; if that is not exact, with the best exact one too."""
    yield over("the best float32 peer", target, peers)
    if peers and min(peers, key=_median)["error_of_call"] > ROUNDING:
        yield over("the best peer that is exact to rounding", target, [p for p in peers if p["error_of_call"] <= ROUNDING])
        if fast is not None:
            yield over("the best float32 peer, in float32-fast", target, peers, fast)


def _start(lines: Any) -> Iterator[Verdict]:
    for line in lines:
        if line.get("limit") is None or "value" in line:
            continue
        seconds, note = line.get("seconds", {}).get("median"), _why(line)
        yield Verdict("cold start to the first digit", None, line["limit"], seconds, "s", False, note)


def _why(line: dict[str, Any]) -> str:
    """The reason for a missing figure."""
    note = str(line.get("note", ""))
    return note.removeprefix("left out: ") if note.startswith("left out") else ""


def _median(line: dict[str, Any]) -> float:
    return line["seconds"]["median"]


def _ratio(peer: dict[str, Any], mine: dict[str, Any]) -> float:
    """The median over rounds of the peer's time over ours."""
    return float(np.median(np.array(peer["rounds"]) / np.array(mine["rounds"])))


def _spread(peer: dict[str, Any], mine: dict[str, Any]) -> tuple[float, float]:
    """The 20th and 80th percentiles of these ratios."""
    low, high = np.quantile(np.array(peer["rounds"]) / np.array(mine["rounds"]), (0.2, 0.8))
    return float(low), float(high)


def spoken(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """The cells of a table: case, threads, target, measured, and whether it is met."""
    sign = "at least" if verdict.least else "under"
    target = "stated" if verdict.target is None else f"{sign} {verdict.target:g} {verdict.unit}".replace(" x", "x")
    measured = "not measured" if verdict.measured is None else f"{digits(verdict.measured)} {verdict.unit}".replace(" x", "x")
    threads = "" if verdict.threads is None else str(verdict.threads)
    return verdict.what, threads, target, measured, {True: "met", False: "missed", None: ""}[verdict.met]


def table(verdicts: list[Verdict]) -> Table:
    out = Table(title="What it must reach", title_justify="left")
    for name in ("", "threads", "target", "measured", "", "with"):
        out.add_column(name)
    for verdict in verdicts:
        out.add_row(*spoken(verdict), verdict.note)
    return out
