"""``python -m bench.digits_card``: measures the bundled digits model again and writes its card, digits.md and digits.json.

For a change of the evaluation, not of the model: the figures of the training and of the learned solvers are kept.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import diffuse_fast as df
from diffuse_fast.console import degrade, say
from diffuse_fast.training.data import digits
from examples.digits.train import NAME, card, measured


def main() -> None:
    degrade()
    folder = Path(str(resources.files("diffuse_fast"))) / "bundled"
    figures = folder / f"{NAME}.json"
    report = json.loads(figures.read_text(encoding="utf-8"))
    report["quality"] = measured(df.load(NAME), digits(), say)
    figures.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / f"{NAME}.md").write_text(card(report), encoding="utf-8")


if __name__ == "__main__":
    main()
