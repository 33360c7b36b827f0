"""The plots of docs/benchmarks.md, from a run's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from .networks import NETWORKS
from .targets import ROUNDING

OURS, THEIRS = "#c2410c", "#64748b"
EACH_OF_THEM = ("#64748b", "#1d4ed8", "#15803d", "#7e22ce")


def grouped(lines: Any) -> dict[tuple, list[dict[str, Any]]]:
    """Lines by network, batch, steps and threads."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for line in lines:
        job = line["job"]
        groups.setdefault((job["network"], job["batch"], job["steps"], job["threads"]), []).append(line)
    return groups


def plot_peers(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel per job, one bar per peer: ms per step."""
    jobs = [(k, v) for case in ("tiny", "small", "medium") for k, v in grouped(cases.get(case, ())).items() if k[3] == 1]
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
        axis.barh([_named(line) for line in timed], values, color=colors, xerr=(low, high), error_kw={"linewidth": 0.8})
        axis.set_title(f"{network}, batch {batch}", fontsize=10)
        axis.set_xlabel("ms per step, one thread", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _named(line: dict[str, Any]) -> str:
    """What is off by more than rounding says so."""
    off = line.get("error_of_call", 0.0)
    return f"{line['name']} ({100 * off:.2g} % off)" if off > ROUNDING else line["name"]


def plot_growth(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
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
        # Few of these span a decade: plain numbers, more of them where the panel spans less, so that every panel has some.
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8), numticks=99))
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


def plot_step(cases: dict[str, list[dict[str, Any]]], path: Path) -> None:
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
