"""``python -m bench.quality_page``: writes docs/quality.md, its plot and its table, what every solver draws of the bundled digits.

The judge of ``diffuse-fast evaluate`` reads them; here each solver draws several sets, at equal numbers of network calls, so that
the page can say which differences are more than chance. ``--redraw`` draws the plot from docs/quality.csv and measures nothing.
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
from diffuse_fast.training.evaluation.classifier import Judge, train_judge
from diffuse_fast.training.evaluation.image_quality import Quality, image_quality, plot

from . import digits_accuracy
from .digits_continued import RESULTS, STEPS

NFE = (5, 10, 20, 50)
NOT_HERE = ("ddim_inverse",)  # from data to noise
LEARNED = "learned"
DOCS = Path(__file__).parent.parent / "docs"
FIGURES = ("accuracy", "score", "frechet_distance", "precision", "recall")  # in the order of Quality
TARGET = 1.5  # points of accuracy below real digits, at 20 calls


@dataclass(frozen=True)
class Cell:
    """The sets that one solver drew with one number of calls."""

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
    judge = train_judge(split.images, split.labels)
    cells: list[Cell] = []
    for name in (LEARNED, *df.solvers()):
        if name not in NOT_HERE:
            real, of_solver = measure(model, split, judge, name, sets)
            cells += of_solver
            print(name, *(f"{c.calls}: {c.mean('frechet_distance'):.2f}" for c in of_solver), flush=True)
    write(real, cells, sets)


def measure(model: df.Model, split: Split, judge: Judge, name: str, sets: int) -> tuple[Quality, list[Cell]]:
    """The real digits' figures and a solver's; none of a solver that is for other schedules."""
    if name == LEARNED:
        steps = {plan.nfe: plan.steps for plan in model.plans}
    else:
        steps = {calls: -(-calls // df.solvers()[name].nfe_per_step) for calls in NFE}
    drawn: dict[int, list[Quality]] = {calls: [] for calls in steps}
    for seed in range(sets):
        real, *rows = image_quality.evaluate(
            model, split, solvers=[name], steps=list(steps.values()), seed=seed, judge=judge, on_refused=lambda *why: None
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
    """The page; ``card`` is what the model's recipe measured (digits.json), where ten sets say how much sets differ."""
    ddim = {cell.calls: cell for cell in cells if cell.solver == "ddim"}
    # What starts with calls of its own (pndm) is not at equal cost.
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
        f"This page is written by `python -m bench.quality_page --sets {sets}`. Its figures are of the bundled digits model,",
        "with each solver as `df.sample` runs it by default (its own spacing, the model's clip, no guidance). The",
        "plot for your own model: `diffuse-fast evaluate MODEL --solver all --out DIR`.",
        "",
        "Samples are judged by three small classifiers trained on the 1,437 training digits. *Accuracy* is how often they",
        "recognise the requested class. The *Fréchet distance* is to the training digits, in their features; it cannot be compared",
        f"with an FID. Every figure is of {sets} x {count} digits with the classes of the held-out ones, from one noise for all.",
        f"Sets of {count} with different seeds have distances with a standard deviation of"
        f" {plain['frechet_distance_std']:.1f} (ten sets, the",
        "model's card), and accuracies with one of about half a point: smaller differences are chance.",
        "",
        f"The {count} real digits that no training saw have an accuracy of {real.accuracy:.2f} % and a distance of"
        f" {real.frechet_distance:.2f}: what perfect",
        "samples in a set of this size can reach. A lower distance is no merit: generated digits are a little closer to the",
        "training digits.",
        "",
        "## At 5, 10, 20 and 50 calls of the network",
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
        "Solvers with two or three calls per step get fewer steps in proportion. `consistency`, `lcm` and `tcd` are for",
        "distilled models, which this one is not. `pndm` has a Runge-Kutta start that costs 9 more calls. More figures",
        "(score, precision, recall, calls made) are in [quality.csv](quality.csv).",
        "",
        *table(cells),
        "",
        *digits_accuracy.lines(json.loads(digits_accuracy.RESULTS.read_text(encoding="utf-8"))),
        "## The bundled model, before and after",
        "",
        f"Its weights are those of its first training ({recipe['config']['steps']:,} steps of {recipe['config']['batch_size']},"
        " v-prediction, the moving average): its card",
        f"has {plain['accuracy']:.2f} % of {plain['samples']:,} digits read as asked for at {quality['steps']} steps, of real ones"
        f" {quality['held_out']['accuracy']:.2f} %. What it has gained since",
        "is plans for few steps, fitted to it ([how](learned-solvers.md)). Before and after, at equal numbers of calls:",
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
    """What training the bundled weights on has brought."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    sets = found["bundled"]["sets"]
    return [
        "The weights trained on (`python -m bench.digits_continued`): with times spread evenly over each batch, the rate decayed",
        f"to 0 once more and a slower average. Means of {sets} sets of digits, the same for each row: a difference of"
        f" {2 * (2 / sets) ** 0.5 * 1.2:.1f} is within chance.",
        "",
        "| weights | loss (v), training | held out | DDIM: " + " | ".join(f"{n} calls" for n in STEPS) + " | accuracy %: "
        + " | ".join(f"{n} calls" for n in STEPS) + " |",
        "|---|" + "---:|" * (2 + 2 * len(STEPS)),
        *(f"| {name} | {row['loss']['training']:.4f} | {row['loss']['held_out']:.4f} | "
          + " | ".join(f"{row[figure][str(n)]:.2f}" for figure in ("frechet_distance", "accuracy") for n in STEPS) + " |"
          for name, row in found.items()),
        "",
        "None is better: on the digits held out the loss does not fall, no distance falls by more than chance, and at 20 calls",
        "the judge does not tell the model's digits from real ones. So the bundled weights are those of the first training.",
    ]  # fmt: skip


def as_good(best: Cell, cells: Sequence[Cell], error: float) -> str:
    """How many sets of this size cannot tell from the best: their distances lie within two standard errors of a difference."""
    close = [
        c
        for c in cells
        if c.calls == best.calls
        and c is not best
        and c.mean("frechet_distance") - best.mean("frechet_distance") < 2 * 2**0.5 * error
    ]
    return f"{len(close)} others are within chance" if close else "no other is within chance"


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
