"""``python -m bench.page``: writes docs/benchmarks.md and its plots from the JSON files in bench/results.

Nothing is measured here. A file that ``python -m bench --json`` wrote becomes a column, one for each kind of machine, when it
lies in bench/results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from .networks import NETWORKS
from .targets import judge, spoken

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
OURS, THEIRS = "#c2410c", "#64748b"
EACH_OF_THEM = ("#64748b", "#1d4ed8", "#15803d", "#7e22ce")

METHOD = """\
Every peer runs in a process of its own, set up as its documentation says (`bench/peers/`, one file each), pinned to as many cores
as it has threads. Before it is timed its samples are held against those that float64 makes of the same noise: *error* is the
largest difference, of the largest value; *of a call* is that of one network call, in the 2-norm. Then the peers take turns; a
figure is the median of the rounds, with the 20th and 80th percentile; ratios are taken within a round. All draw with DDIM, x0
clipped to [-1, 1]; each draws its own initial noise. `torch.compile` compiles before it is timed. A peer with a thread outside its
cores is not timed. The first step of a noisy schedule divides by a small alpha: with few steps and random weights it magnifies the
error of the samples, and that of a call says more.

*Of the limit* is the time that the network's multiply-adds (counted by torch) take at the machine's peak, and the step's bytes (12
per element) at its bandwidth, over the median: the peak is the best `torch.mm`, the bandwidth that of copying 256 MiB, in the same
run. An algorithm that does fewer multiply-adds (Winograd) can pass 100 %."""


def main() -> None:
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    runs = {name: run for name, run in runs.items() if "limits" in run}  # older files keep figures of the step alone
    (DOCS / "images").mkdir(exist_ok=True)
    for name, run in runs.items():
        for stem, draw in (("peers", _plot_peers), ("growth", _plot_growth), ("step", _plot_step)):
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
    minutes = [f"{sum(run['took'].values()) / 60:.0f} minutes" if "took" in run else "" for run in runs.values()]
    yield row("the run took", minutes)
    yield row("limits", ["<br>".join(_limit(limit) for limit in run["limits"]) for run in runs.values()])
    yield ""


def _limit(limit: dict[str, Any]) -> str:
    plural = "s" if limit["threads"] > 1 else ""
    return (
        f"{limit['threads']} thread{plural}: {limit['multiply_adds'] / 1e9:.0f} G multiply-adds/s float32, "
        f"{limit['multiply_adds_bf16'] / 1e9:.0f} bfloat16; copies {limit['bandwidth'] / 1e9:.1f} GB/s"
    )


def _targets(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A row for each case, with a column for each machine and number of threads."""
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for name, run in runs.items():
        for verdict in judge(run["cases"], run["machine"]):
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
        for key, lines in _grouped(cases.get(case, ())).items():
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
                    f"| {bold}{line['name']}{bold} | {middle:.3g} | {low:.3g} .. {high:.3g} | {ratio} | {share} | "
                    f"{line.get('error', 0):.0e} | {line.get('error_of_call', 0):.0e} |"
                )
            yield ""
            if left_out:
                yield f"Left out: {'; '.join(left_out)}."
                yield ""


def _rest(cases: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    titles = {
        "start": "Cold start and peak memory", "installation": "Installation", "memory": "Memory of sampling",
        "step": "The step, by instruction set", "solvers": "A row of every solver",
        "small_step": "A small step", "loop": "The loop", "forward": "Noised data and its target", "training": "Training",
    }  # fmt: skip
    for case, title in titles.items():
        if case not in cases:
            continue
        yield f"### {title}"
        yield ""
        yield "| | figure | ratio | to | |"
        yield "|---|---:|---:|---|---|"
        for line in cases[case]:
            figures = [f"{line['value']:.3g} {line.get('unit', '')}"] if "value" in line else []
            if "seconds" in line:
                figures.append(f"{line['seconds']['median'] * 1e3:.4g} ms")
            figure = ", ".join(figures)
            ratio = f"{line['ratio']['median']:.2f}" if "ratio" in line else ""
            target = line.get("note", "")
            if "limit" in line:
                target = f"target {line['limit']:g}: {'met' if line.get('met') else 'missed'}"
            yield f"| {line['name']} | {figure} | {ratio} | {line.get('peer', '')} | {target} |"
        yield ""


def _grouped(lines: Any) -> dict[tuple, list[dict[str, Any]]]:
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for line in lines:
        job = line["job"]
        groups.setdefault((job["network"], job["batch"], job["steps"], job["threads"]), []).append(line)
    return groups


# ---- plots --------------------------------------------------------------------------------------


def _plot_peers(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel per job, one bar per peer: ms per step."""
    jobs = [(k, v) for case in ("tiny", "small", "medium") for k, v in _grouped(cases.get(case, ())).items() if k[3] == 1]
    if not jobs:
        return
    columns = 2
    rows = -(-len(jobs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 3.2 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(jobs) :]:
        axis.remove()
    for axis, ((network, batch, steps, _), lines) in zip(axes.flat, jobs, strict=False):
        timed = sorted((line for line in lines if "seconds" in line), key=lambda line: -line["seconds"]["median"])
        values = [line["seconds"]["median"] / steps * 1e3 for line in timed]
        low = [v - line["seconds"]["p20"] / steps * 1e3 for v, line in zip(values, timed, strict=True)]
        high = [line["seconds"]["p80"] / steps * 1e3 - v for v, line in zip(values, timed, strict=True)]
        colors = [OURS if line["job"]["ours"] else THEIRS for line in timed]
        axis.barh([line["name"] for line in timed], values, color=colors, xerr=(low, high), error_kw={"linewidth": 0.8})
        axis.set_title(f"{network}, batch {batch}", fontsize=10)
        axis.set_xlabel("ms per step, one thread", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _plot_growth(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    lines = [line for line in cases.get("growth", ()) if "seconds" in line]
    if not lines:
        return
    at = {
        "samples": lambda job: job["batch"], "steps": lambda job: job["steps"], "threads": lambda job: job["threads"],
        "resolution": lambda job: NETWORKS[job["network"]].shape[-1],
    }  # fmt: skip
    figure, axes = plt.subplots(1, 4, figsize=(15, 4), layout="constrained")
    for axis, (name, place) in zip(axes, at.items(), strict=True):
        here = [line for line in lines if line["job"]["axis"] == name]
        colors = iter(EACH_OF_THEM)
        for peer in dict.fromkeys(line["name"] for line in here):
            own = [line for line in here if line["name"] == peer]
            places = [place(line["job"]) for line in own]
            style = {"color": OURS, "linewidth": 2.2} if own[0]["job"]["ours"] else {"color": next(colors)}
            axis.plot(places, [line["seconds"]["median"] * 1e3 for line in own], marker="o", markersize=4, label=peer, **style)
        ticks = sorted({place(line["job"]) for line in here})
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="ms for all samples" if name == "samples" else "")
        axis.set_xticks(ticks, [f"{t}x{t}" if name == "resolution" else str(t) for t in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        # Few of these span a decade: ticks at 1, 2 and 5 in plain numbers, so that every panel has some.
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        network = here[0]["job"]["network"] if name != "resolution" else "UNet of 4 M"
        job = here[0]["job"]
        rest = {"samples": "", "steps": f", batch {job['batch']}"}.get(name, f", batch {job['batch']}, {job['steps']} steps")
        axis.set_title(f"{name} ({network}{rest})", fontsize=10)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=9, ncols=5, loc="outside lower center")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _plot_step(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    lines = cases.get("step_sizes", [])
    if not lines:
        return
    counts = sorted({line["job"]["threads"] for line in lines})
    figure, axes = plt.subplots(1, len(counts), figsize=(6 * len(counts), 4.2), layout="constrained", squeeze=False, sharey=True)
    for axis, threads in zip(axes.flat, counts, strict=True):
        for ours, name in ((True, "df.step"), (False, "diffusers, scheduler.step")):
            for noise, style in ((False, "-"), (True, "--")):
                wanted = {"threads": threads, "ours": ours, "noise": noise}
                own = [line for line in lines if wanted.items() <= line["job"].items()]
                color = OURS if ours else THEIRS
                label = f"{name}, {'noise' if noise else 'no noise'}"
                values = [line["seconds"]["median"] * 1e6 for line in own]
                elements = [line["job"]["elements"] for line in own]
                axis.plot(elements, values, style, color=color, marker="o", markersize=4, label=label)
        axis.set(xscale="log", yscale="log", xlabel="elements", ylabel="µs" if threads == counts[0] else "")
        axis.set_title(f"{threads} thread{'s' if threads > 1 else ''}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
