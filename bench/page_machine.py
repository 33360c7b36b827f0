"""The page of one machine, docs/benchmarks/<machine>.md: every figure of its run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .networks import NETWORKS
from .page_cases import OWN_TABLES
from .plots import grouped
from .report import digits
from .targets import spoken, verdicts

PLOTS = {
    "peers": "Time of every peer relative to this project, one thread",
    "growth": "Time by samples, steps, resolution and threads",
    "step": "One step against diffusers' scheduler.step",
}


def page(name: str, run: dict[str, Any], images: Path) -> Iterator[str]:
    """The lines of the page; ``images`` is the folder that its plots may be in."""
    yield f"# {run['machine']['processor']}"
    yield ""
    yield "Every figure of one run, written by `python -m bench.page`. What the columns mean and how it was measured:"
    yield "[the method](../benchmarks.md#method)."
    yield ""
    yield from _machine(run)
    yield "## Targets"
    yield ""
    yield from _targets(run)
    for stem, about in PLOTS.items():
        if (images / f"bench-{stem}-{name}.png").exists():
            yield f"![{about}](../images/bench-{stem}-{name}.png)"
            yield ""
    yield "## Sampling"
    yield ""
    yield from _sampling(run["cases"])
    yield "## Other cases"
    yield ""
    yield from _other_cases(run["cases"])


def _machine(run: dict[str, Any]) -> Iterator[str]:
    machine = run["machine"]
    rows = {
        "instruction sets": " ".join(machine["instruction_sets"]),
        "caches": ", ".join(f"{level} {size}" for level, size in machine["caches"].items()),
        "versions": ", ".join([f"Python {machine['python']}", *(f"{name} {v}" for name, v in machine["versions"].items() if v)]),
        "commit": str(machine["commit"]),
        "note": run.get("note", ""),
        "duration": _took(run.get("took", {})),
        "limits": "<br>".join(_limit(limit) for limit in run["limits"]),
    }
    yield "| | |"
    yield "|---|---|"
    for label, value in rows.items():
        if value:
            yield f"| {label} | {value} |"
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


def _targets(run: dict[str, Any]) -> Iterator[str]:
    """A row for each case, with a column for each number of threads."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for verdict in verdicts(run["cases"], run["machine"]):
        what, threads, target, measured, outcome = spoken(verdict)
        outcome = f" **{outcome}**" if outcome else ""
        note = f"<br>{verdict.note}" if verdict.note else ""
        rows.setdefault((what, target), {})[threads or "1"] = f"{measured}{outcome}{note}"
    columns = sorted({threads for cells in rows.values() for threads in cells})
    titles = [f"{threads} thread{'s' if threads != '1' else ''}" for threads in columns]
    yield f"| case | target | {' | '.join(titles)} |"
    yield f"|---|---|{'---|' * len(columns)}"
    for (what, target), cells in rows.items():
        yield f"| {what} | {target} | {' | '.join(cells.get(column, '') for column in columns)} |"
    yield ""
    yield "A cell names our configuration and the peer. Start-up time and installed size do not depend on the number of threads."
    yield ""


def _sampling(cases: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
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


def _other_cases(cases: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    titles = {
        "training": "Training", "graphs": "What the runtimes are given", "growth": "Growth", "processes": "Threads and processes",
        "start": "Cold start and peak memory", "installation": "Installation", "memory": "Memory of sampling",
        "traffic": "Bytes of a step, counted", "step": "The step, by instruction set", "solvers": "A row of every solver",
        "serving": "Requests to the server", "small_step": "A small step", "loop": "The loop",
        "forward": "Noised data and its target",
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
        note = line.get("note", "")
        if "met" in line:
            unit = "" if "ratio" in line else line.get("unit", "s")
            note = f"target {line['limit']:g} {unit}".rstrip() + f": {'met' if line['met'] else 'missed'}"
        yield f"| {line['name']} | {', '.join(figures)} | {ratio} | {line.get('peer', '')} | {note} |"
