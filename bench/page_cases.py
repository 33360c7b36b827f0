"""Tables of docs/benchmarks.md for cases with a comparison of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .report import digits

Lines = list[dict[str, Any]]


def training(lines: Lines) -> Iterator[str]:
    """A row for each trainer and number of threads, the lines of a ratio beside the trainer that they are of."""
    yield "The digits UNet, batch 64, float32. *Our time over its* is taken within the rounds; the target is at most 1."
    yield ""
    yield "| | threads | images/s | ms per step | p20 .. p80 | our time over its | |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    ratios = {line["name"].partition(" over ")[2]: line for line in lines if "ratio" in line}
    for line in lines:
        if "ratio" in line:
            continue
        name, _, threads = line["name"].rpartition(", ")
        shown = f"**{name}**" if name == "diffuse_fast" else name
        threads = threads.partition(" ")[0]
        if "seconds" not in line:
            yield f"| {shown} | {threads} | | | | | {line.get('note', '')} |"
            continue
        over = ratios.get(line["name"])
        ratio, met = ("", "") if over is None else (f"{over['ratio']['median']:.2f}", "met" if over["met"] else "missed")
        rate, (middle, spread) = f"{line['value']:.3g}", _ms(line)
        yield f"| {shown} | {threads} | {rate} | {middle} | {spread} | {ratio} | {met} |"


def graphs(lines: Lines) -> Iterator[str]:
    """A row for each way besides ours, beside ours of that batch and runtime."""
    yield "One call of the bundled model on one thread: as this project gives it to the runtime, and as torch exports it."
    yield ""
    yield "| batch | runtime | ours, ms | p20 .. p80 | otherwise | ms | p20 .. p80 | ours is faster |"
    yield "|---:|---|---:|---:|---|---:|---:|---:|"
    by_name = {line["name"]: line for line in lines}
    for line in lines:
        batch, _, way = line["name"].removeprefix("batch ").partition(": ")
        runtime, _, otherwise = way.partition(", ")
        if otherwise:
            ours = " | ".join(_ms(by_name[f"batch {batch}: {runtime}"]))
            yield f"| {batch} | {runtime} | {ours} | {otherwise} | {' | '.join(_ms(line))} | {line['ratio']['median']:.2f}x |"


def growth(lines: Lines) -> Iterator[str]:
    """A table for each axis: peers down, places across."""
    at: dict[str, Callable[[dict[str, Any]], str]] = {
        "samples": lambda job: f"{job['batch']}", "steps": lambda job: f"{job['steps']}",
        "threads": lambda job: f"{job['threads']}", "resolution": lambda job: job["network"].removeprefix("unet"),
    }  # fmt: skip
    for axis, place in at.items():
        here = [line for line in lines if line["job"]["axis"] == axis]
        if not here:
            continue
        job = here[0]["job"]
        fixed = {"network": job["network"], "batch": job["batch"], "steps": job["steps"], "threads": job["threads"]}
        fixed.pop({"samples": "batch", "resolution": "network"}.get(axis, axis))
        places = list(dict.fromkeys(place(line["job"]) for line in here))
        remark = ", ".join(f"{what} {value}" for what, value in fixed.items()).replace("network ", "")
        yield f"Milliseconds for all samples, by {axis} ({remark}):"
        yield ""
        yield f"| | {' | '.join(places)} |"
        yield f"|---|{'---:|' * len(places)}"
        for name in dict.fromkeys(line["name"] for line in here):
            cells = {place(line["job"]): _ms(line)[0] for line in here if line["name"] == name and "seconds" in line}
            shown = f"**{name}**" if name.startswith("diffuse_fast") else name
            yield f"| {shown} | {' | '.join(cells.get(p, '') for p in places)} |"
        yield ""


def installation(lines: Lines) -> Iterator[str]:
    yield "| | MB | |"
    yield "|---|---:|---|"
    for line in lines:
        size = f"{line['value']:.0f}" if "value" in line else ""
        remark = f"target {line['limit']:g}: {'met' if line['met'] else 'missed'}" if "met" in line else line.get("note", "")
        yield f"| {line['name']} | {size} | {remark} |"


def _ms(line: dict[str, Any]) -> tuple[str, str]:
    """The median, and its spread."""
    low, middle, high = (digits(line["seconds"][k] * 1e3) for k in ("p20", "median", "p80"))
    return middle, f"{low} .. {high}"


OWN_TABLES: dict[str, Callable[[Lines], Iterator[str]]] = {
    "training": training, "graphs": graphs, "growth": growth, "installation": installation,
}  # fmt: skip
