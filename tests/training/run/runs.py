"""A small run, as a program of its own: to be killed, resumed, and run by several processes."""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np
import torch

import diffuse_fast as df
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.objectives import ImportanceTimes, Objective
from diffuse_fast.training.run.distributed import process_group, rank

SCHEDULE = df.Schedule.cosine(num_train_timesteps=50)


def problem(samples: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Three constant pictures and a little noise."""
    labels = np.arange(samples) % 3
    return (labels - 1.0).reshape(-1, 1, 1, 1) + 0.05 * np.random.default_rng(0).standard_normal((samples, 1, 4, 4)), labels


def small(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    return df.nn.UNet(1, **{"channels": 8, "groups": 4, "blocks": 1, "num_classes": 3, "dropout": 0.1, **options})


class Spare(torch.nn.Module):
    """A network with a parameter that its forward pass does not use, and a count of its passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.unused = torch.nn.Conv2d(1, 1, 1), torch.nn.Parameter(torch.ones(2))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x, t):
        if self.training:
            self.passes += 1
        return self.body(x)


def weights(network: torch.nn.Module) -> dict[str, list[float]]:
    """Every number of it: JSON gives a float32 back to the bit."""
    return {name: p.detach().flatten().tolist() for name, p in network.named_parameters()}


def main(folder: str, out: str, text: str) -> None:
    options = json.loads(text)
    kill_at, resume, dropout = options.pop("kill_at", None), options.pop("resume", False), options.pop("dropout", 0.1)
    few = df.Schedule.cosine(num_train_timesteps=3)
    by_cost = Objective(few, "epsilon", times=ImportanceTimes(few, history=1)) if options.pop("importance", False) else None
    torch.set_num_threads(1)
    data, labels = problem()
    losses: list[float] = []

    def callback(step: int, loss: float) -> None:
        losses.append(loss)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with process_group():
        network = small(dropout=dropout)
        result = df.train(
            network,
            data,
            labels,
            schedule=None if by_cost else SCHEDULE,
            objective=by_cost,
            config=TrainConfig(**options),
            folder=folder,
            resume=resume,
            callback=callback,
        )
        spare = Spare()
        df.train(spare, data, schedule=SCHEDULE, config=TrainConfig(steps=3, batch_size=8, warmup_steps=0))
        if rank() == 0:
            found = {"average": weights(result.network), "losses": result.record.losses, "seen": losses}
            with open(out, "w", encoding="utf-8") as file:
                json.dump({**found, "spare": weights(spare), "passes": spare.passes.item()}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
