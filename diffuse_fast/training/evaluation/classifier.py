"""Small classifiers trained on real images. They recognise generated images for :mod:`.image_quality`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """An ensemble of three small image classifiers. The accuracy of one alone varies by about a point with its seed.

    Args:
        shape: (channels, height, width) of an image; height and width are at least 4.
        classes: Number of classes.
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
        """The inputs of the last layers, (B, 96), for x (B, *shape) in [-1, 1]."""
        return torch.cat([body(x) for body in self.bodies], dim=1)

    def votes(self, x: Tensor) -> list[Tensor]:
        """The log-probabilities (B, classes) of each member."""
        return [head(body(x)).log_softmax(dim=1) for body, head in zip(self.bodies, self.heads, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """The summed log-probabilities of the classes, (B, classes)."""
        return torch.stack(self.votes(x)).sum(dim=0)


def train_classifier(images: np.ndarray, labels: np.ndarray, *, passes: int = 30, seed: int = 0) -> Classifier:
    """Train a classifier on images (N, C, H, W) in [-1, 1] and integer labels (N,) from 0.

    It trains on one thread, because the order of torch's sums depends on the number of threads: the same arguments give the
    same classifier on any number of cores.
    """
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        classifier = Classifier(images.shape[1:], int(labels.max()) + 1)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        batches = -(-len(x) // 64)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=passes * batches)
        for _ in range(passes):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                torch.stack([F.nll_loss(vote, y[batch]) for vote in classifier.votes(x[batch])]).sum().backward()
                optimizer.step()
                rate.step()
    return classifier.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
