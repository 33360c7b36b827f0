"""``python -m bench.page``: writes docs/benchmarks.md and its plots from the JSON files in bench/results.

Nothing is measured here. A file that ``python -m bench --json`` wrote becomes a column, one for each kind of machine, when it
lies in bench/results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .networks import NETWORKS
from .page_cases import OWN_TABLES
from .plots import grouped, plot_growth, plot_peers, plot_step
from .report import digits
from .targets import spoken, verdicts

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
MISSED = ROOT / "bench" / "missed.md"  # written by hand, of the runs that are shown

METHOD = """\
Every peer runs in a process of its own, set up as its documentation says (`bench/peers/`, one file each), pinned to as many
cores as the column has threads. onnxruntime and OpenVINO are driven by diffusers' scheduler and by a loop in NumPy. *tuned* is
what `diffuse-fast tune` chose on those cores, which may be fewer threads, or halves of a batch beside each other;
*float32-fast* lets MNN take its larger Winograd tiles ([runtimes](runtimes.md)).

Before a peer is timed its samples, and a call of its network at three times, are held against those that float64 makes of the
same noise: *error* is the largest difference of the samples, of the largest value; *of a call* is that of one network call, in
the 2-norm, at the worst of the three times. A call that is off by more than 1e-3 (0.2 in bfloat16 and int8) is not timed. The
first step of a noisy schedule divides by a small alpha: with few steps and random weights it magnifies the error of the
samples, up to 2 where they are clipped, and that of a call says more.

Then the peers take turns, in an order drawn anew for each round: once the threads of the one before have stopped spinning, one
call that is not timed where it takes less than 0.1 s, and the timed ones. A figure is the median of the rounds, with the 20th
and 80th percentile. All draw with DDIM, x0 clipped to [-1, 1]; each draws its own initial noise. `torch.compile` compiles
before it is timed, and `tune` times last, when nobody else is set up. A peer with a thread outside its cores is not timed.
*Over diffuse_fast* is a peer's time over that of the first line of ours. In the table of what must be reached it is the other
way round, the peer's time over ours, taken within each round: the median, and behind the names the 20th and 80th percentile.

*Of the limit* is the time that the network's multiply-adds (counted by torch) take at the machine's peak, and the step's bytes
(12 per element) at its bandwidth, over the median: the peak is that of torch's matrix product in what the row computes in (a
row in int8: as if all of it were), the bandwidth that of copying 256 MiB, in the same run. An algorithm that does fewer
multiply-adds (Winograd) can pass 100 %. So can a step into another array: what is overwritten is read first, which is a third
of what a copy moves, a quarter of what a step moves, and counted for neither. Where a target over a peer is missed, *the limit
itself* is what 100 % would be over that peer."""


def main() -> None:
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    runs = {name: run for name, run in runs.items() if "limits" in run}  # older files keep figures of the step alone
    (DOCS / "images").mkdir(exist_ok=True)
    for name, run in runs.items():
        for stem, draw in (("peers", plot_peers), ("growth", plot_growth), ("step", plot_step)):
            draw(run["cases"], DOCS / "images" / f"bench-{stem}-{name}.png")
    (DOCS / "benchmarks.md").write_text("\n".join(page(runs)).rstrip() + "\n")


def page(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `python -m bench.page` from `bench/results/*.json`; `make bench` takes the figures of your machine."
    yield ""
    yield from _machines(runs)
    yield "## What it must reach"
    yield ""
    yield from _targets(runs)
    yield "## What is missed, and why"
    yield ""
    yield MISSED.read_text().strip()
    yield ""
    yield "## Method"
    yield ""
    yield METHOD
    yield ""
    for name, run in runs.items():
        yield f"## {run['machine']['processor']}"
        yield ""
        for stem, about in (
            ("peers", "Time of every peer over this project's, one thread"),
            ("growth", "Growth with samples, steps, resolution and threads"),
            ("step", "One step against diffusers' scheduler.step"),
        ):
            if (DOCS / "images" / f"bench-{stem}-{name}.png").exists():
                yield f"![{about}](images/bench-{stem}-{name}.png)"
                yield ""
        yield from _drawn(run["cases"])
        yield from _rest(run["cases"])


def _machines(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"| | {' | '.join(runs)} |"
    yield f"|---|{'---|' * len(runs)}"

    def row(label: str, cells: list[str]) -> str:
        return f"| {label} | {' | '.join(cells)} |"

    machines = [run["machine"] for run in runs.values()]
    yield row("processor", [m["processor"] for m in machines])
    yield row("instruction sets", [" ".join(m["instruction_sets"]) for m in machines])
    yield row("caches", [", ".join(f"{level} {size}" for level, size in m["caches"].items()) for m in machines])
    versions = [", ".join(f"{package} {v}" for package, v in m["versions"].items() if v) for m in machines]
    yield row("versions", [f"Python {m['python']}, {v}" for m, v in zip(machines, versions, strict=True)])
    yield row("commit", [str(m["commit"]) for m in machines])
    if any("note" in run for run in runs.values()):
        yield row("to know", [run.get("note", "") for run in runs.values()])
    yield row("the run took", [_took(run.get("took", {})) for run in runs.values()])
    yield row("limits", ["<br>".join(_limit(limit) for limit in run["limits"]) for run in runs.values()])
    yield ""


def _took(took: dict[str, float]) -> str:
    """Minutes, and of which cases: those of half a minute and more."""
    if not took:
        return ""
    long = sorted(((seconds, case) for case, seconds in took.items() if seconds >= 30), reverse=True)
    return f"{sum(took.values()) / 60:.0f} minutes: {', '.join(f'{case} {seconds / 60:.1f}' for seconds, case in long)}"


def _limit(limit: dict[str, Any]) -> str:
    plural = "s" if limit["threads"] > 1 else ""
    return (
        f"{limit['threads']} thread{plural}: {limit['multiply_adds'] / 1e9:.0f} G multiply-adds/s float32, "
        f"{limit['multiply_adds_bf16'] / 1e9:.0f} bfloat16, {limit['multiply_adds_int8'] / 1e9:.0f} int8; "
        f"copies {limit['bandwidth'] / 1e9:.1f} GB/s"
    )


def _targets(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A row for each case, with a column for each machine and number of threads."""
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for name, run in runs.items():
        for verdict in verdicts(run["cases"], run["machine"]):
            what, threads, target, measured, met = spoken(verdict)
            note = f"<br>{verdict.note}" if verdict.note else ""
            cell = f"{measured} {f'**{met}**' if met else ''}{note}"
            rows.setdefault((what, target), {})[name, threads or "1"] = cell
    columns = sorted({column for cells in rows.values() for column in cells})
    titles = [f"{name}, {threads} thread{'s' if threads != '1' else ''}" for name, threads in columns]
    yield f"| case | target | {' | '.join(titles)} |"
    yield f"|---|---|{'---|' * len(columns)}"
    for (what, target), cells in rows.items():
        yield f"| {what} | {target} | {' | '.join(cells.get(column, '') for column in columns)} |"
    yield ""
    yield "A cell names what of ours was held against whom. Starts and sizes have no number of threads of their own."
    yield ""


def _drawn(cases: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for case in ("tiny", "small", "medium"):
        for key, lines in grouped(cases.get(case, ())).items():
            network, batch, steps, threads = key
            yield f"### {network}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
            yield ""
            yield f"{NETWORKS[network].about}; {steps} DDIM steps."
            yield ""
            yield "| | ms per step | p20 .. p80 | over diffuse_fast | of the limit | error | of a call |"
            yield "|---|---:|---:|---:|---:|---:|---:|"
            left_out = []
            for line in sorted(lines, key=lambda line: line.get("seconds", {}).get("median", 0.0)):
                if "seconds" not in line:
                    left_out.append(f"{line['name']} ({line['note'].removeprefix('left out: ')})")
                    continue
                low, middle, high = (line["seconds"][k] / steps * 1e3 for k in ("p20", "median", "p80"))
                bold = "**" if line["job"]["ours"] else ""
                ratio = f"{line['ratio']['median']:.2f}" if "ratio" in line else ""
                share = f"{line['share']:.0%}" if "share" in line else ""
                yield (
                    f"| {bold}{line['name']}{bold} | {digits(middle)} | {digits(low)} .. {digits(high)} | {ratio} | {share} | "
                    f"{line.get('error', 0):.0e} | {line.get('error_of_call', 0):.0e} |"
                )
            yield ""
            if left_out:
                yield f"Left out: {'; '.join(left_out)}."
                yield ""


def _rest(cases: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    titles = {
        "training": "Training", "graphs": "What the runtimes are given", "growth": "Growth", "processes": "Threads and processes",
        "start": "Cold start and peak memory", "installation": "Installation", "memory": "Memory of sampling",
        "traffic": "Bytes of a step, counted", "step": "The step, by instruction set", "solvers": "A row of every solver",
        "small_step": "A small step", "loop": "The loop", "forward": "Noised data and its target",
    }  # fmt: skip
    for case, title in titles.items():
        if case in cases:
            yield f"### {title}"
            yield ""
            yield from OWN_TABLES.get(case, _figures)(cases[case])
            yield ""


def _figures(lines: list[dict[str, Any]]) -> Iterator[str]:
    yield "| | figure | ratio | to | |"
    yield "|---|---:|---:|---|---|"
    for line in lines:
        figures = [f"{digits(line['value'])} {line.get('unit', '')}"] if "value" in line else []
        if "seconds" in line:
            figures.append(f"{line['seconds']['median'] * 1e3:.4g} ms")
        ratio = f"{line['ratio']['median']:.2f}" if "ratio" in line else ""
        told = line.get("note", "")
        if "met" in line:
            unit = "" if "ratio" in line else line.get("unit", "s")
            told = f"target {line['limit']:g} {unit}".rstrip() + f": {'met' if line['met'] else 'missed'}"
        yield f"| {line['name']} | {', '.join(figures)} | {ratio} | {line.get('peer', '')} | {told} |"


if __name__ == "__main__":
    main()
