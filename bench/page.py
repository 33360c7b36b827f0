"""``python -m bench.page``: write docs/benchmarks.md, one page per machine in docs/benchmarks/, and their plots.

Nothing is measured here: the figures are those of the files in bench/results, which ``python -m bench --json`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import page_machine
from .plots import grouped, plot_growth, plot_peers, plot_step
from .report import digits
from .targets import COMPILED, TUNED, verdicts

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
MISSED = ROOT / "bench" / "missed.md"  # written by hand, about these runs
METHOD = ROOT / "bench" / "method.md"  # written by hand

# The headline's rows (peers) and columns (networks), at batch 1 on one thread. Of a peer's lines the fastest is shown.
PEERS = {
    "**diffuse_fast**": (TUNED,),
    "torch": ("torch loop",),
    "torch.compile": COMPILED,
    "onnxruntime + diffusers": ("onnxruntime + diffusers",),
    "OpenVINO + diffusers": ("OpenVINO + diffusers",),
}
NETWORKS = {
    "mlp": "MLP, 2-D points",
    "digits": "UNet, 8x8 (bundled digits)",
    "unet28": "UNet, 28x28",
    "cifar10": "UNet of DDPM, 32x32",
}


def main() -> None:
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    runs = {name: run for name, run in runs.items() if "limits" in run}  # the others belong to the quality page
    images, pages = DOCS / "images", DOCS / "benchmarks"
    images.mkdir(exist_ok=True)
    pages.mkdir(exist_ok=True)
    for name, run in runs.items():
        for stem, draw in (("peers", plot_peers), ("growth", plot_growth), ("step", plot_step)):
            draw(run["cases"], images / f"bench-{stem}-{name}.png")
        _write(pages / f"{name}.md", page_machine.page(name, run, images))
    _write(DOCS / "benchmarks.md", page(runs))


def _write(path: Path, lines: Iterator[str]) -> None:
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def page(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """docs/benchmarks.md: the headline, the missed targets, the method."""
    yield "# Benchmarks"
    yield ""
    yield "Written by `python -m bench.page` from `bench/results/*.json`; `make bench` measures your machine. Every figure:"
    yield f"{', '.join(f'[{name}](benchmarks/{name}.md)' for name in runs)}."
    yield ""
    yield "## Headline"
    yield ""
    yield "Milliseconds per step for one sample, on one thread, in float32 (medians). *torch* is a plain loop in eager mode."
    yield ""
    for name, run in runs.items():
        yield from headline(name, run)
    yield "## Targets"
    yield ""
    yield from _targets(runs)
    yield "## What is missed, and why"
    yield ""
    yield MISSED.read_text(encoding="utf-8").strip()
    yield ""
    yield "## Method"
    yield ""
    yield METHOD.read_text(encoding="utf-8").strip()


def headline(name: str, run: dict[str, Any]) -> Iterator[str]:
    """One machine's table of PEERS and NETWORKS. A network that was not run has no column."""
    columns: dict[str, dict[str, float]] = {}
    for case in ("tiny", "small", "medium"):
        for (network, batch, steps, threads), lines in grouped(run["cases"].get(case, ())).items():
            if network in NETWORKS and batch == threads == 1:
                columns[network] = {line["name"]: line["seconds"]["median"] / steps * 1e3 for line in lines if "seconds" in line}
    yield f"| {run['machine']['processor']}, `{name}` | {' | '.join(NETWORKS[network] for network in columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for peer, names in PEERS.items():
        cells = [[times[name] for name in names if name in times] for times in columns.values()]
        yield f"| {peer} | {' | '.join(digits(min(cell)) if cell else '' for cell in cells)} |"
    yield ""


def _targets(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The number of targets that each machine meets."""
    yield "| machine | met | missed | |"
    yield "|---|---:|---:|---|"
    for name, run in runs.items():
        outcomes = [verdict.met for verdict in verdicts(run["cases"], run["machine"])]
        yield f"| `{name}` | {outcomes.count(True)} | {outcomes.count(False)} | [each of them](benchmarks/{name}.md#targets) |"
    yield ""


if __name__ == "__main__":
    main()
