"""``python -m bench.digits_accuracy``: the accuracy of the samples by guidance scale and by number of steps.

Every solver samples with 20 network calls at each guidance scale (twice as many evaluations above scale 1). Two solvers with the
default spacing ``leading`` and one with another sample in few steps. It prints the two tables of docs/quality.md and writes
the figures to ``bench/results/digits-accuracy.json``, from which ``python -m bench.quality_page`` reads them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffuse_fast as df
from diffuse_fast.training.data import digits
from diffuse_fast.training.evaluation.classifier import Classifier, train_classifier

RESULTS = Path(__file__).parent / "results" / "digits-accuracy.json"
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
CALLS = 20
STEPS = (1, 2, 3, 4, 5, 8, 10, 20)
FEW = ("ddim", "ddpm", "dpmpp_2m")
EXCLUDED = ("ddim_inverse", "flow_euler", "flow_heun", "langevin_pc")  # from data to noise, for flows, for another prediction type


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits_accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=int, default=360, help="digits in each figure (default: 360)")
    parser.add_argument("--table", choices=("guidance", "steps"), help="measure one table and keep the other")
    given = parser.parse_args()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    model, split = df.load("digits"), digits()
    classifier = train_classifier(split.images, split.labels)
    if given.table != "steps":
        runs = {
            name: {f"{scale:g}": {"steps": -(-CALLS // of.nfe_per_step), "guidance_scale": scale} for scale in SCALES}
            for name, of in df.solvers().items()
            if name not in EXCLUDED
        }
        found["guidance"] = {"digits": given.digits, "accuracy": measured(model, classifier, runs, given.digits)}
    if given.table != "guidance":
        runs = {name: {str(steps): {"steps": steps} for steps in STEPS} for name in FEW}
        found["steps"] = {"digits": given.digits, "accuracy": measured(model, classifier, runs, given.digits)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))


def measured(
    model: df.Model, classifier: Classifier, runs: Mapping[str, Mapping[str, Mapping[str, Any]]], count: int
) -> dict[str, dict[str, float]]:
    """The accuracy in percent for each solver and each of its runs, which are options of ``df.sample``."""
    labels = np.arange(count) % 10
    found: dict[str, dict[str, float]] = {}
    for solver, options in runs.items():
        found[solver] = {}
        for name, more in options.items():
            x = df.sample(model, count, solver=solver, seed=0, cond={"label": labels}, **more)
            with torch.no_grad():
                read = classifier(torch.from_numpy(x)).argmax(dim=1).numpy()
            found[solver][name] = round(100.0 * float((read == labels).mean()), 1)
        print(solver, found[solver], flush=True)
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """The two sections of docs/quality.md."""
    written = []
    if guidance := found.get("guidance"):
        written += [
            "## With guidance",
            "",
            f"Accuracy in percent at {CALLS} calls, by guidance scale, of {guidance['digits']} digits from one noise"
            " (`python -m bench.digits_accuracy`).",
            "The model clips, and `ddim` and `tcd` take the noise from the clipped prediction. With `rederive_epsilon=False`, as",
            "in diffusers, `ddim` generates other digits than those asked for at scales from 2.",
            "",
            *table("scale", guidance["accuracy"]),
            "",
        ]
    if steps := found.get("steps"):
        written += [
            "## In few steps",
            "",
            f"Accuracy in percent by number of steps, of {steps['digits']} digits from one noise, each solver with its default",
            "spacing (`python -m bench.digits_accuracy`).",
            "",
            *table("steps", steps["accuracy"]),
            "",
        ]
    return written


def table(what: str, accuracy: Mapping[str, Mapping[str, float]]) -> list[str]:
    heads: Sequence[str] = list(next(iter(accuracy.values())))
    return [
        "| solver | " + " | ".join(f"{what} {head}" for head in heads) + " |",
        "|---|" + "---:|" * len(heads),
        *(f"| `{solver}` | " + " | ".join(f"{of[head]:.1f}" for head in heads) + " |" for solver, of in accuracy.items()),
    ]


if __name__ == "__main__":
    main()
