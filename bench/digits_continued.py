"""``python -m bench.digits_continued --weights digits.safetensors``: whether more training makes the bundled model better.

From the weights that the recipe leaves (``python -m diffuse_fast.training.digits``) 1,500 steps more, with even times, the rate
decayed to 0 again and a slower average: with the loss of the recipe, and with min-SNR weights. Each model draws the same sets of
360 digits with DDIM as the bundled one; what docs/quality.md says of them is ``bench/results/digits-continued.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import diffuse_fast as df
from diffuse_fast.training.data import Split, digits
from diffuse_fast.training.digits import CONFIG, SCHEDULE, export_weights, final_losses, load_weights
from diffuse_fast.training.evaluation.classifier import Judge, train_judge
from diffuse_fast.training.evaluation.image_quality import image_quality
from diffuse_fast.training.objectives import MinSNR, Objective, UniformTimes

RESULTS = Path(__file__).parent / "results" / "digits-continued.json"
MORE = dataclasses.replace(CONFIG, steps=1500, learning_rate=1e-3, ema_decay=0.998, seed=1)
WEIGHTINGS = {"bundled": None, "1,500 steps more": None, "1,500 steps more, min-SNR-5": MinSNR(5.0)}
STEPS = (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits_continued", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="digits.safetensors of the recipe")
    parser.add_argument("--sets", type=int, default=4, help="sets of 360 digits for each model and number of steps")
    given = parser.parse_args()
    split = digits()
    judge = train_judge(split.images, split.labels)
    found = {}
    for name, weighting in WEIGHTINGS.items():
        network, record = load_weights(given.weights)
        if name != "bundled":
            network.requires_grad_(True)
            times = UniformTimes(SCHEDULE, "low_discrepancy")
            objective = Objective(SCHEDULE, CONFIG.prediction_type, weighting=weighting, times=times)
            result = df.train(network, split.images, split.labels, objective=objective, config=MORE, progress=True)
            network, record = result.network, result.record.to_json()
        found[name] = {"loss": final_losses(network, CONFIG.prediction_type), **drawn(network, record, split, judge, given.sets)}
        print(name, found[name], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def drawn(network: Any, record: dict[str, Any], split: Split, judge: Judge, sets: int) -> dict[str, Any]:
    """The mean Fréchet distance and accuracy of a network's sets by number of DDIM steps."""
    with tempfile.TemporaryDirectory() as folder:
        model = export_weights(network, record, Path(folder) / "digits.onnx")
        rows = [
            row
            for seed in range(sets)
            for row in image_quality.evaluate(model, split, solvers=["ddim"], steps=STEPS, seed=seed, judge=judge)
            if row.steps
        ]

    def mean(steps: int, figure: str) -> float:
        return round(statistics.fmean(getattr(row, figure) for row in rows if row.steps == steps), 2)

    return {"sets": sets, **{figure: {n: mean(n, figure) for n in STEPS} for figure in ("frechet_distance", "accuracy")}}


if __name__ == "__main__":
    main()
