"""``python -m bench.digits_continued --run out/digits``: whether more training improves the bundled model.

From the last checkpoint of the recipe (``examples/digits/train.py``) it trains 1,500 steps more, with evenly spread times, the rate
decayed to 0 again and a slower average: with the loss of the recipe, and with min-SNR weights. Each model generates the same sets
of 360 digits with DDIM as the bundled one. The results, ``bench/results/digits-continued.json``, are on docs/quality.md.
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
from diffuse_fast.training.config.recipe import recipe
from diffuse_fast.training.data import Split, digits
from diffuse_fast.training.evaluation import evaluate
from diffuse_fast.training.evaluation.classifier import Classifier, train_classifier
from diffuse_fast.training.objectives import MinSNR, Objective, UniformTimes
from diffuse_fast.training.run import checkpoint
from diffuse_fast.training.run.state import restore
from examples.digits.train import final_losses

from .digits_recipe import CONFIG, SCHEDULE, SETTINGS

RESULTS = Path(__file__).parent / "results" / "digits-continued.json"
MORE = dataclasses.replace(CONFIG, steps=1500, learning_rate=1e-3, ema_decay=0.998, seed=1)
WEIGHTINGS = {"bundled": None, "1,500 steps more": None, "1,500 steps more, min-SNR-5": MinSNR(5.0)}
STEPS = (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits_continued", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the recipe's run, with its checkpoints")
    parser.add_argument("--sets", type=int, default=4, help="sets of 360 digits for each model and number of steps")
    given = parser.parse_args()
    kept = checkpoint.newest(given.run)
    if kept is None:
        parser.error(f"there is no checkpoint in {given.run}.")
    split = digits()
    classifier = train_classifier(split.images, split.labels)
    found = {}
    for name, weighting in WEIGHTINGS.items():
        made = recipe(SETTINGS)
        network = made.network.eval()
        restore(network, made.objective, kept.tensors)
        if name != "bundled":
            times = UniformTimes(SCHEDULE, "low_discrepancy")
            objective = Objective(SCHEDULE, CONFIG.prediction_type, weighting=weighting, times=times)
            network = df.train(network, split.images, split.labels, objective=objective, config=MORE, progress=True).network
        found[name] = {"loss": final_losses(network, split), **sampled(network, split, classifier, given.sets)}
        print(name, found[name], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def sampled(network: Any, split: Split, classifier: Classifier, sets: int) -> dict[str, Any]:
    """The mean Fréchet distance and accuracy of a network's sets by number of DDIM steps."""
    with tempfile.TemporaryDirectory() as folder:
        model = df.export(
            network,
            Path(folder) / "digits.onnx",
            shape=(1, 8, 8),
            schedule=SCHEDULE,
            prediction_type=CONFIG.prediction_type,
            clip=(-1.0, 1.0),
            value_range=(-1.0, 1.0),
            conditioning=[{"name": "label", "dtype": "int64", "null": 10, "classes": 10}],
        )
        rows = [
            row
            for seed in range(sets)
            for row in evaluate(model, split, solvers=["ddim"], steps=STEPS, seed=seed, classifier=classifier)
            if row.steps
        ]

    def mean(steps: int, figure: str) -> float:
        return round(statistics.fmean(getattr(row, figure) for row in rows if row.steps == steps), 2)

    return {"sets": sets, **{figure: {n: mean(n, figure) for n in STEPS} for figure in ("frechet_distance", "accuracy")}}


if __name__ == "__main__":
    main()
