"""``df.train``."""

from __future__ import annotations

import diffuse_fast as df

from . import Run


def train(run: Run) -> None:
    df.train(run.network, run.data, schedule=run.schedule, config=run.config, callback=lambda step, loss: run.done())
