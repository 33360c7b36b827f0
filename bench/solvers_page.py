"""``python -m bench.solvers_page``: writes docs/solvers.md and its plots, the error of every solver on the bundled model.

Deterministic solvers: the distance of their samples from those of a fine run, from the same noise. Stochastic ones have no path to
be near to: the distance between the distributions of their samples and of the fine run's, as two Gaussians over the pixels.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import sqrtm

import diffuse_fast as df
from diffuse_fast.solvers.solver import Solver

STEPS = (5, 6, 8, 10, 15, 20, 50)
# One grid for all, which begins at the noisiest timestep; but the cosine schedule's is at sigma/alpha = 2e4, and a method that
# divides by alpha does not survive a first step from there to 6.
GRID = {"timestep_spacing": "trailing"}
NOT_HERE = ("ddim_inverse",)  # from data to noise
FINE = ("dpmpp_2m", 250)
DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.solvers_page", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help="samples for the distance along paths")
    parser.add_argument("--draws", type=int, default=400, help="samples for the distance of distributions")
    arguments = parser.parse_args()
    model = df.load("digits")
    exact = {name: s for name, s in df.solvers().items() if not s.stochastic and name not in NOT_HERE}
    noisy = {name: s for name, s in df.solvers().items() if s.stochastic}
    target = draw(model, arguments.pairs, *FINE)
    paths = {name: curve(model, name, arguments.pairs, lambda x: rms(x, target)) for name in exact}
    fine = draw(model, arguments.draws, *FINE)
    other = draw(model, arguments.draws, *FINE, first_index=arguments.draws)
    clouds = {name: curve(model, name, arguments.draws, lambda x: frechet(x, fine)) for name in noisy}
    paths, clouds = ({name: c for name, c in curves.items() if c} for curves in (paths, clouds))
    plot(paths, "root mean square distance from the fine run", DOCS / "images" / "solvers-ode.png")
    plot(clouds, "Fréchet distance over pixels", DOCS / "images" / "solvers-sde.png", floor=frechet(other, fine))
    (DOCS / "solvers.md").write_text(page(paths, clouds, frechet(other, fine), arguments.pairs, arguments.draws))


def draw(model: df.Model, n: int, solver: str, steps: int, first_index: int = 0) -> np.ndarray:
    label = (np.arange(n) + first_index) % 10
    options = {**GRID, **({"skip_prk_steps": True} if solver == "pndm" else {})}
    return df.sample(
        model, n, steps, solver=solver, seed=1, first_index=first_index, cond={"label": label}, batch_size=250, **options,
    )  # fmt: skip


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


def plot(curves: dict[str, dict[int, float]], label: str, path: Path, floor: float | None = None) -> None:
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    styles = ["-", "--", ":"]
    for i, (name, points) in enumerate(sorted(curves.items(), key=lambda item: min(item[1].values()))):
        style = {"linestyle": styles[i // 10 % 3], "color": f"C{i % 10}", "marker": "o", "markersize": 3}
        axes.plot(list(points), list(points.values()), label=name, **style)
    if floor is not None:
        axes.axhline(floor, color="black", linewidth=0.8)
        axes.text(STEPS[0], floor, " two fine runs", va="bottom", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=label)
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(paths: dict[str, dict[int, float]], clouds: dict[str, dict[int, float]], floor: float, pairs: int, draws: int) -> str:
    solver, steps = FINE
    lines = [
        "# Solvers",
        "",
        "This page is written by `python -m bench.solvers_page`; its figures are of the bundled digits model, with its own clip,",
        "on `trailing` grids. Every solver is a table for the same fused step: what",
        "differs is where the network is called, and how its answers are combined. Columns are at equal cost: a solver with two",
        "calls per step has half the steps, rounded up. The order is that with the highest `solver_order`; `deis`, `unipc` and",
        "`dpmsolver_singlestep` take 2 unless told. `langevin_pc` is in no figure: it samples from a score, and this model",
        "predicts v.",
        "",
        "The model's cosine schedule begins at sigma/alpha = 2e4. The methods that average slopes in sigma (`heun`, `dpm_2`,",
        "`dpmsolver_2s`, `dpmsolver_3s`) take a long step from above sigma/alpha = 1000, to less than half of it, in one stage, as",
        "they do from a start without any signal: the weight of a second stage would be up to a thousand there, and multiply what",
        "the network errs by. That is one call less than `calls per step` says, or two; `diffusers` and the papers have no such",
        "rule. Why it costs nothing: `diffuse_fast/solvers/stages.py`.",
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
        "![Error against network evaluations, deterministic solvers](images/solvers-ode.png)",
        "",
        *table(paths),
        "",
        "## Stochastic solvers",
        "",
        f"Fréchet distance over pixels between {draws} digits and as many of the fine run; two fine runs are {floor:.3f} apart,",
        "which is what this many samples can tell. `consistency`, `lcm` and `tcd` are for distilled models, and not at home here.",
        "",
        "![Distance of distributions against network evaluations, stochastic solvers](images/solvers-sde.png)",
        "",
        *table(clouds),
        "",
    ]
    return "\n".join(lines)


def described(s: Solver) -> str:
    families = "all" if len(s.families) > 5 else ", ".join(s.families)
    noise = "yes" if s.stochastic else "no"
    return f"| `{s.name}` | {s.order} | {s.nfe_per_step} | {s.registers} | {noise} | {families} | {s.paper} |"


def table(curves: dict[str, dict[int, float]]) -> list[str]:
    rows = [f"| network evaluations | {' | '.join(map(str, STEPS))} |", f"|---|{'---|' * len(STEPS)}"]
    for name, points in sorted(curves.items(), key=lambda item: item[1].get(10, math.inf)):
        cells = (f"{points[nfe]:.3g}" if nfe in points else "" for nfe in STEPS)
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()
