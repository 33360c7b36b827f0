"""Embeddings of the time and the class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import require_int
from ..errors import ArgumentError


def frequencies(count: int, device: torch.device | None = None) -> Tensor:
    """Frequencies (count,) float32 from 1 down to 1/10,000, evenly spaced in logarithm (Vaswani et al. 2017)."""
    return torch.exp(-math.log(10000.0) * torch.arange(count, device=device) / max(count - 1, 1))


def sinusoids(t: Tensor, at: Tensor) -> Tensor:
    """(B, 2n) for times (B,) at frequencies (n,), in the dtype of these; of ones that were cast to less than float32, computed in
    float32 from what they were."""
    exact = at if at.dtype.itemsize >= 4 else frequencies(len(at), at.device)
    angles = t.to(exact.dtype)[:, None] * exact
    both = torch.cat([angles.sin(), angles.cos()], dim=1)
    return both if exact is at else both.to(at.dtype)


class TimeEmbedding(nn.Module):
    """Times (B,), integer or fractional, to vectors (B, ``out_channels``): sinusoids (Vaswani et al. 2017), then an
    MLP.

    The sinusoids are never computed in less than float32, also where the network is cast to bfloat16: there 999 is 1000, and a
    sinusoid of it has nothing to do with that of the time.
    """

    frequencies: Tensor

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.register_buffer("frequencies", frequencies(channels // 2), persistent=False)
        self.hidden = nn.Linear(channels, out_channels)
        self.out = nn.Linear(out_channels, out_channels)

    def forward(self, t: Tensor) -> Tensor:
        return self.out(F.silu(self.hidden(sinusoids(t, self.frequencies))))


class Conditioned(nn.Module):
    """A network with a time and, where ``num_classes`` is given, a class; what :meth:`condition` returns is the sum of their
    vectors.

    A class-conditional network has one class more than ``num_classes``, the *null class* (number ``num_classes``), which stands for
    a missing label; classifier-free guidance (Ho & Salimans 2022) needs it.
    """

    def __init__(self, channels: int, width: int, num_classes: int | None):
        super().__init__()
        self.num_classes = num_classes
        self.time = TimeEmbedding(channels, width)
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, width)

    def condition(self, t: Tensor, label: Tensor | None) -> Tensor:
        """(B, width) for times (B,) and labels (B,) int64; no labels are all null.

        Raises:
            ArgumentError: a label is given to a network without classes.
        """
        embedding = self.time(t)
        if self.label is not None and self.num_classes is not None:
            if label is None:
                label = torch.full_like(t, self.num_classes, dtype=torch.int64)
            return embedding + self.label(label)
        if label is not None:
            raise ArgumentError("this network has no classes, but a label was given; build it with num_classes=...")
        return embedding


def positive(**counts: int | None) -> None:
    """Check that counts are at least 1, or None.

    Raises:
        ArgumentError, ArgumentTypeError: one is not; the message names it.
    """
    for name, count in counts.items():
        if count is not None:
            require_int(name, count, 1)
