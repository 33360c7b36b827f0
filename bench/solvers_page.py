"""``python -m bench.solvers_page``: writes docs/solvers.md and its plots, the error of every solver on the bundled model.

Deterministic solvers: the distance of their samples from those of a fine run, from the same noise. Stochastic ones have no path to
be near to: the distance between the distributions of their samples and of the fine run's, as two Gaussians over the pixels.
``--redraw`` writes the page and the plots from docs/solvers.csv and measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy.linalg import sqrtm

import diffuse_fast as df
from diffuse_fast.solver.solver import Solver

STEPS = (5, 6, 8, 10, 15, 20, 50)
# One grid for all, which begins at the noisiest timestep; but the cosine schedule's is at sigma/alpha = 2e4, and a method that
# divides by alpha does not survive a first step from there to 6.
GRID = {"timestep_spacing": "trailing"}
NOT_HERE = ("ddim_inverse",)  # from data to noise
FINE = ("dpmpp_2m", 250)
DOCS = Path(__file__).parent.parent / "docs"
TABLE = DOCS / "solvers.csv"
FLOOR = "two fine runs"

Curves = dict[str, dict[int, float]]  # by solver, by network evaluations


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.solvers_page", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help="samples for the distance along paths")
    parser.add_argument("--draws", type=int, default=400, help="samples for the distance of distributions")
    parser.add_argument("--redraw", action="store_true", help="write the page and the plots from docs/solvers.csv; measure nothing")
    arguments = parser.parse_args()
    if arguments.redraw:
        measured = read_csv()
        (DOCS / "solvers.md").write_text(page(*measured, arguments.pairs, arguments.draws), encoding="utf-8")
        plot_all(*measured)
        return
    model = df.load("digits")
    exact = {name: s for name, s in df.solvers().items() if not s.stochastic and name not in NOT_HERE}
    noisy = {name: s for name, s in df.solvers().items() if s.stochastic}
    target = draw(model, arguments.pairs, *FINE)
    paths = {name: curve(model, name, arguments.pairs, lambda x: rms(x, target)) for name in exact}
    fine = draw(model, arguments.draws, *FINE)
    other = draw(model, arguments.draws, *FINE, first_index=arguments.draws)
    clouds = {name: curve(model, name, arguments.draws, lambda x: frechet(x, fine)) for name in noisy}
    paths, clouds = ({name: c for name, c in curves.items() if c} for curves in (paths, clouds))
    floor = frechet(other, fine)
    write_csv(paths, clouds, floor)
    (DOCS / "solvers.md").write_text(page(paths, clouds, floor, arguments.pairs, arguments.draws), encoding="utf-8")
    plot_all(paths, clouds, floor)


def draw(model: df.Model, n: int, solver: str, steps: int, first_index: int = 0) -> np.ndarray:
    label = (np.arange(n) + first_index) % 10
    options = {**GRID, **({"skip_prk_steps": True} if solver == "pndm" else {})}
    return df.sample(
        model, n, steps, solver=solver, seed=1, first_index=first_index, cond={"label": label}, batch_size=250, **options
    )


def curve(model: df.Model, solver: str, n: int, distance) -> dict[int, float]:
    """Error by network evaluations (rounded up to whole steps); empty where the solver is not for this model."""
    out = {}
    for steps in STEPS:
        each = df.solvers()[solver].nfe_per_step
        try:
            samples = draw(model, n, solver, -(-steps // each))
        except df.DiffuseFastError:
            continue
        out[steps] = distance(samples)
    return out


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Between two Gaussians with the means and covariances of the samples (Dowson & Landau 1982)."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    ca, cb = np.cov(a.T), np.cov(b.T)
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb))))


def plot(curves: Curves, label: str, path: Path, floor: float | None = None) -> None:
    """A row of dots for each solver, the best at the top; the colour of a dot says how many network evaluations it took."""
    names = sorted(curves, key=lambda name: min(curves[name].values()), reverse=True)  # from the bottom
    colours = ScalarMappable(LogNorm(STEPS[0], STEPS[-1]), "viridis_r")
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.28 * len(names)), layout="constrained")
    for height, name in enumerate(names):
        points = curves[name]
        axes.plot(list(points.values()), [height] * len(points), color="0.8", linewidth=1.0, zorder=1)
        axes.scatter(list(points.values()), [height] * len(points), s=24, c=[colours.to_rgba(n) for n in points], zorder=2)
    if floor is not None:
        axes.axvline(floor, color="black", linewidth=0.8, linestyle="-.", label="two fine runs")
        axes.legend(loc="lower right", fontsize="small")
    axes.set(xscale="log", xlabel=label, yticks=range(len(names)), yticklabels=names)
    values = [value for points in curves.values() for value in points.values()]
    wide = max(values) > 20 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), numticks=99))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    bar = figure.colorbar(colours, ax=axes, label="network evaluations", ticks=STEPS, format="{x:g}")
    bar.minorticks_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_all(paths: Curves, clouds: Curves, floor: float) -> None:
    plot(paths, "root mean square distance from the fine run", DOCS / "images" / "solvers-ode.png")
    plot(clouds, "Fréchet distance over pixels", DOCS / "images" / "solvers-sde.png", floor=floor)


def write_csv(paths: Curves, clouds: Curves, floor: float) -> None:
    """What is plotted: a line for each solver and number of evaluations, and the distance of two fine runs."""
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["figure", "solver", "evaluations", "distance"])
        writer.writerow(["sde", FLOOR, "", f"{floor:.4g}"])
        for figure, curves in (("ode", paths), ("sde", clouds)):
            for name, points in curves.items():
                writer.writerows([figure, name, evaluations, f"{value:.4g}"] for evaluations, value in points.items())


def read_csv() -> tuple[Curves, Curves, float]:
    """What :func:`write_csv` wrote."""
    curves: dict[str, Curves] = {"ode": {}, "sde": {}}
    with open(TABLE, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["solver"] == FLOOR:
                floor = float(line["distance"])
            else:
                curves[line["figure"]].setdefault(line["solver"], {})[int(line["evaluations"])] = float(line["distance"])
    return curves["ode"], curves["sde"], floor


def page(paths: Curves, clouds: Curves, floor: float, pairs: int, draws: int) -> str:
    solver, steps = FINE
    lines = [
        "# Solvers",
        "",
        "This page is written by `python -m bench.solvers_page`. The figures are for the bundled digits model, with its clip,",
        "on `trailing` grids (`pndm` with `skip_prk_steps=True`). Every solver is a table for the same fused step; solvers",
        "differ in the times of the network calls and in how the outputs are combined. Columns have equal cost: a solver with",
        "two calls per step has half the steps, rounded up. The order is that of the highest `solver_order`; the default of",
        "`deis`, `unipc` and `dpmsolver_singlestep` is 2. `langevin_pc` is not in the figures: it needs a score, and this model",
        "predicts v.",
        "",
        "A step that is too long in the log-SNR for its order is taken at first order, as is a step from a state without",
        "signal, because the correction of a second stage grows with the ratio of the noise levels at its ends. This affects",
        "plans of few steps, and schedules like the model's cosine schedule, which starts at sigma/alpha = 2e4. Such a plan",
        "makes fewer calls than `calls per step`. diffusers and the papers have no such rule; `df.Plan.from_diffusers` keeps",
        "their rows and warns. `diffuse_fast/solver/leaps.py` explains the rule.",
        "",
        "The tests require of every solver an error of at most 5 times DDIM's + 0.001 at equal cost, on every schedule and",
        "spacing.",
        "",
        "| solver | order | calls per step | registers | noise | families of schedules | from |",
        "|---|---|---|---|---|---|---|",
        *(described(s) for s in df.solvers().values()),
        "",
        "## Deterministic solvers",
        "",
        f"Root mean square distance per pixel (values from -1 to 1) from {steps} steps of `{solver}` with the same noise,",
        f"{pairs} digits.",
        "",
        "![Error of the deterministic solvers, coloured by network evaluations](images/solvers-ode.png)",
        "",
        *table(paths),
        "",
        "## Stochastic solvers",
        "",
        f"Fréchet distance over pixels between {draws} digits and as many of the fine run; two fine runs are {floor:.3f} apart,",
        "the resolution of this many samples. `consistency`, `lcm` and `tcd` are for distilled models, which this one is not.",
        "",
        "![Distance of the stochastic solvers, coloured by network evaluations](images/solvers-sde.png)",
        "",
        *table(clouds),
        "",
    ]
    return "\n".join(lines)


def described(s: Solver) -> str:
    families = "all" if len(s.families) > 5 else ", ".join(s.families)
    noise = "yes" if s.stochastic else "no"
    return f"| `{s.name}` | {s.order} | {s.nfe_per_step} | {s.registers} | {noise} | {families} | {s.paper} |"


def table(curves: Curves) -> list[str]:
    rows = [f"| network evaluations | {' | '.join(map(str, STEPS))} |", f"|---|{'---|' * len(STEPS)}"]
    for name, points in sorted(curves.items(), key=lambda item: item[1].get(10, math.inf)):
        cells = (f"{points[nfe]:.3g}" if nfe in points else "" for nfe in STEPS)
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()
