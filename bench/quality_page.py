"""``python -m bench.quality_page``: write docs/quality.md, its plot and its table: the quality of every solver's digits.

The figures are those of ``diffuse-fast evaluate``. Every solver generates several sets, at equal numbers of network calls, so that
the page can say which differences are significant. ``--redraw`` plots docs/quality.csv again and measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import diffuse_fast as df
from diffuse_fast.console import degrade
from diffuse_fast.training.data import Split, digits
from diffuse_fast.training.evaluation import Quality, evaluate, plot
from diffuse_fast.training.evaluation.classifier import Classifier, train_classifier

from . import digits_accuracy
from .digits_continued import RESULTS, STEPS

NFE = (5, 10, 20, 50)
EXCLUDED = ("ddim_inverse",)  # from data to noise
LEARNED = "learned"
DOCS = Path(__file__).parent.parent / "docs"
FIGURES = ("accuracy", "score", "frechet_distance", "precision", "recall")  # in the order of Quality
TARGET = 1.5  # points of accuracy below real digits, at 20 calls


@dataclass(frozen=True)
class Cell:
    """The sets that one solver generated with one number of calls."""

    solver: str
    calls: int
    sets: tuple[Quality, ...]

    def mean(self, figure: str) -> float:
        return statistics.fmean(getattr(q, figure) for q in self.sets)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_page", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=4, help="sets of 360 digits for each solver and number of calls (default: 4)")
    parser.add_argument("--redraw", action="store_true", help="draw the plot from docs/quality.csv again, and measure nothing")
    arguments = parser.parse_args()
    degrade()
    if arguments.redraw:
        draw(read_csv(DOCS / "quality.csv"))
        return
    sets = arguments.sets
    if sets < 1:
        parser.error("--sets must be at least 1.")
    model, split = df.load("digits"), digits()
    classifier = train_classifier(split.images, split.labels)
    cells: list[Cell] = []
    for name in (LEARNED, *df.solvers()):
        if name not in EXCLUDED:
            real, of_solver = measure(model, split, classifier, name, sets)
            cells += of_solver
            print(name, *(f"{c.calls}: {c.mean('frechet_distance'):.2f}" for c in of_solver), flush=True)
    write(real, cells, sets)


def measure(model: df.Model, split: Split, classifier: Classifier, name: str, sets: int) -> tuple[Quality, list[Cell]]:
    """The figures of the real digits, and of a solver; an empty list for a solver of other schedules."""
    if name == LEARNED:
        steps = {plan.nfe: plan.steps for plan in model.plans}
    else:
        steps = {calls: -(-calls // df.solvers()[name].nfe_per_step) for calls in NFE}
    drawn: dict[int, list[Quality]] = {calls: [] for calls in steps}
    for seed in range(sets):
        real, *rows = evaluate(
            model, split, solvers=[name], steps=list(steps.values()), seed=seed, classifier=classifier, on_refused=lambda *why: None
        )
        for row in rows:
            drawn[next(calls for calls, count in steps.items() if count == row.steps)].append(row)
    return real, [Cell(name, calls, tuple(of_calls)) for calls, of_calls in drawn.items() if of_calls]


def write(real: Quality, cells: Sequence[Cell], sets: int) -> None:
    card = json.loads((resources.files("diffuse_fast") / "bundled" / "digits.json").read_text(encoding="utf-8"))
    rows = [real, *(averaged(cell) for cell in cells)]
    draw(rows)
    table_csv(real, cells, DOCS / "quality.csv")
    (DOCS / "quality.md").write_text(page(real, cells, sets, card), encoding="utf-8")


def draw(rows: Sequence[Quality]) -> None:
    plot.plot(rows, DOCS / "images" / "quality.png", "digits: quality by solver and network calls")


def averaged(cell: Cell) -> Quality:
    q = cell.sets[0]
    return Quality(q.solver, q.steps, q.nfe, **{name: cell.mean(name) for name in FIGURES})


def read_csv(path: Path) -> list[Quality]:
    """The rows that :func:`table_csv` wrote; the real digits have no steps."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Quality(line["solver"], int(line["steps"] or 0), int(line["nfe"] or 0), *(float(line[name]) for name in FIGURES))
            for line in csv.DictReader(file)
        ]


def table_csv(real: Quality, cells: Sequence[Cell], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["solver", "calls", "steps", "nfe", *FIGURES])
        writer.writerow([real.solver, "", "", "", *(f"{getattr(real, name):.4g}" for name in FIGURES)])
        for cell in cells:
            q = averaged(cell)
            writer.writerow([q.solver, cell.calls, q.steps, q.nfe, *(f"{getattr(q, name):.4g}" for name in FIGURES)])


def page(real: Quality, cells: Sequence[Cell], sets: int, card: Mapping[str, Any]) -> str:
    """The page; ``card`` is digits.json, which has the spread between ten sets."""
    ddim = {cell.calls: cell for cell in cells if cell.solver == "ddim"}
    # Without solvers whose start costs more calls (pndm).
    alike = [c for c in cells if c.sets[0].nfe < c.calls + 3]
    best = {calls: min((c for c in alike if c.calls == calls), key=lambda c: c.mean("frechet_distance")) for calls in NFE}
    count = len(digits().held_out_labels)
    recipe, quality = card["recipe"], card["quality"]
    plain = next(g for g in quality["generated"] if g["guidance_scale"] == 1.0)
    error = plain["frechet_distance_std"] / sets**0.5
    twenty = ddim[20].mean("accuracy")
    reached = "within" if twenty >= real.accuracy - TARGET else "not within"
    lines = [
        "# Quality",
        "",
        f"The quality of the bundled digits model's samples, written by `python -m bench.quality_page --sets {sets}`. Every solver",
        "has the defaults of `df.sample`: its own spacing, the model's clip, no guidance. For your own model,",
        "`diffuse-fast evaluate MODEL --solver all --out DIR` writes the same table and plot.",
        "",
        "A classifier, an ensemble of three small ones, is trained on the 1,437 training digits. The *accuracy* is the share of",
        "samples that it recognises as the class asked for. The *Fréchet distance* is to the training digits, in the classifier's",
        f"features; it is not comparable to FIDs elsewhere. Every figure is over {sets} x {count} digits with the classes of the",
        f"held-out ones, from the same noise for all. Sets of {count} that differ in the seed alone have a standard deviation of",
        f"{plain['frechet_distance_std']:.1f} in the distance (ten sets, the model's card) and of about half a point in the"
        " accuracy. Smaller differences are",
        "not significant.",
        "",
        f"The {count} held-out real digits have an accuracy of {real.accuracy:.2f} % and a distance of"
        f" {real.frechet_distance:.2f}: the best that a set of this",
        "size can be expected to reach. A smaller distance is not better: generated digits are slightly nearer to the training",
        "digits than real ones.",
        "",
        "## At 5, 10, 20 and 50 network calls",
        "",
        "| calls | DDIM: Fréchet distance | accuracy % | the best solver: Fréchet distance | accuracy % |",
        "|---:|---:|---:|---|---:|",
        *(f"| {calls} | {ddim[calls].mean('frechet_distance'):.2f} | {ddim[calls].mean('accuracy'):.2f} "
          f"| {best[calls].mean('frechet_distance'):.2f}, `{best[calls].solver}`; {as_good(best[calls], alike, error)} "
          f"| {best[calls].mean('accuracy'):.2f} |" for calls in NFE),
        "",
        f"Accuracy at 20 calls of DDIM is {twenty:.2f} %, {reached} {TARGET} points of the real digits' {real.accuracy:.2f} %.",
        "",
        "![Fréchet distance and accuracy of every solver, coloured by network calls](images/quality.png)",
        "",
        "## Every solver",
        "",
        "Solvers with two or three calls per step have proportionally fewer steps, rounded up. `consistency`, `lcm` and `tcd` are",
        "for distilled models, which this is not. The Runge-Kutta start of `pndm` costs 9 more calls. [quality.csv](quality.csv)",
        "has more figures: score, precision, recall, calls made.",
        "",
        *table(cells),
        "",
        *digits_accuracy.lines(json.loads(digits_accuracy.RESULTS.read_text(encoding="utf-8"))),
        "## The bundled model, before and after",
        "",
        f"Its weights are those of its first training ({recipe['config']['steps']:,} steps of {recipe['config']['batch_size']},"
        " v-prediction, the moving average). Its card",
        f"has an accuracy of {plain['accuracy']:.2f} % over {plain['samples']:,} digits at {quality['steps']} steps, and of"
        f" {quality['held_out']['accuracy']:.2f} % for real digits. Since then it has",
        "gained plans for few steps, fitted to it (docs/learned-solvers.md). Before and after, at equal numbers of calls:",
        "",
        "| calls | before: DDIM | accuracy % | after: `learned` | accuracy % |",
        "|---:|---:|---:|---:|---:|",
        *(f"| {c.calls} | {ddim[c.calls].mean('frechet_distance'):.2f} | {ddim[c.calls].mean('accuracy'):.2f} "
          f"| {c.mean('frechet_distance'):.2f} | {c.mean('accuracy'):.2f} |"
          for c in cells if c.solver == LEARNED and c.calls in ddim),
        "",
        *continued(),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def continued() -> list[str]:
    """The effect of training the bundled weights further."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    sets = found["bundled"]["sets"]
    return [
        "More training (`python -m bench.digits_continued`), with times spread evenly over each batch, the rate decayed to 0",
        f"again and a slower average. Means of {sets} sets of digits, the same for each row: differences up to"
        f" {2 * (2 / sets) ** 0.5 * 1.2:.1f} are not significant.",
        "",
        "| weights | loss (v), training | held out | DDIM: " + " | ".join(f"{n} calls" for n in STEPS) + " | accuracy %: "
        + " | ".join(f"{n} calls" for n in STEPS) + " |",
        "|---|" + "---:|" * (2 + 2 * len(STEPS)),
        *(f"| {name} | {row['loss']['training']:.4f} | {row['loss']['held_out']:.4f} | "
          + " | ".join(f"{row[figure][str(n)]:.2f}" for figure in ("frechet_distance", "accuracy") for n in STEPS) + " |"
          for name, row in found.items()),
        "",
        "None is better: the held-out loss does not fall, no distance falls significantly, and at 20 calls the classifier",
        "recognises the model's digits as well as real ones. So the bundled weights are those of the first training.",
    ]  # fmt: skip


def as_good(best: Cell, cells: Sequence[Cell], error: float) -> str:
    """How many others are not significantly worse than the best: within two standard errors of a difference."""
    close = [
        c
        for c in cells
        if c.calls == best.calls
        and c is not best
        and c.mean("frechet_distance") - best.mean("frechet_distance") < 2 * 2**0.5 * error
    ]
    return f"{len(close)} others do not differ significantly" if close else "all others are worse"


def table(cells: Sequence[Cell]) -> list[str]:
    by = {(cell.solver, cell.calls): cell for cell in cells}
    names = sorted({c.solver for c in cells}, key=lambda s: by[s, 10].mean("frechet_distance") if (s, 10) in by else float("inf"))
    heads = " | ".join(f"{calls} calls" for calls in NFE)
    rows = [f"| solver | {heads} | {heads} |", "|---|" + "---:|" * (2 * len(NFE)),
            "| | *Fréchet distance* |" + " |" * (len(NFE) - 1) + " *accuracy* |" + " |" * (len(NFE) - 1)]  # fmt: skip
    for name in names:
        mine = [by.get((name, calls)) for calls in NFE]
        distances = ["" if c is None else f"{c.mean('frechet_distance'):.3g}" for c in mine]
        accuracies = ["" if c is None else f"{c.mean('accuracy'):.1f}" for c in mine]
        rows.append(f"| `{name}` | {' | '.join(distances + accuracies)} |")
    return rows


if __name__ == "__main__":
    main()
