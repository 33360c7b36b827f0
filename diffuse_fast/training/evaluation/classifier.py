"""Classifiers trained on real images, which judge generated ones for :mod:`diffuse_fast.training.quality`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Judge(nn.Module):
    """A committee of three small classifiers of images, since one alone errs by a point more or less with its seed.

    Args:
        shape: (channels, height, width) of an image, height and width from 4.
        classes: How many there are.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        flat = 64 * (height // 4) * (width // 4)
        self.bodies = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(64, 64, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.3),
                nn.Linear(flat, 32),
                nn.ReLU(),
            )
            for _ in range(3)
        )
        self.heads = nn.ModuleList(nn.Linear(32, classes) for _ in range(3))

    def features(self, x: Tensor) -> Tensor:
        """What the last layers read, (B, 96), for x (B, *shape) in [-1, 1]."""
        return torch.cat([body(x) for body in self.bodies], dim=1)

    def votes(self, x: Tensor) -> list[Tensor]:
        """The log-probabilities (B, classes) that each member gives."""
        return [head(body(x)).log_softmax(dim=1) for body, head in zip(self.bodies, self.heads, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """The summed log-probabilities of the classes, (B, classes)."""
        return torch.stack(self.votes(x)).sum(dim=0)


def train_judge(images: np.ndarray, labels: np.ndarray, *, passes: int = 30, seed: int = 0) -> Judge:
    """A judge trained on images (N, C, H, W) in [-1, 1] and labels (N,), whole numbers from 0; the same on every call with
    the same arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(images.shape[1:], int(labels.max()) + 1)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        batches = -(-len(x) // 64)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=passes * batches)
        for _ in range(passes):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                torch.stack([F.nll_loss(vote, y[batch]) for vote in judge.votes(x[batch])]).sum().backward()
                optimizer.step()
                rate.step()
    return judge.eval()
