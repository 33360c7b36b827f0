"""A multilayer perceptron for vectors: points, features, actions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .blocks import zeroed
from .embedding import Conditioned, positive


class MLP(Conditioned):
    """Residual blocks x + W2·silu(W1·(norm(x)·(1 + scale) + shift)), with scale and shift from time and class.

    Args:
        features: Numbers in a sample.
        out_features: Numbers in the prediction; ``features`` unless given.
        width: Width of the blocks.
        depth: Number of blocks.
        dropout: Dropout inside blocks, in training.
        num_classes: None, or the number of classes, to which the null class is added (:class:`Conditioned`).

    Raises:
        ArgumentError: A count is below 1.

    Example:
        >>> import torch, diffuse_fast as df
        >>> df.nn.MLP(2, width=64)(torch.zeros(3, 2), torch.tensor([0, 10, 999])).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        features: int,
        out_features: int | None = None,
        *,
        width: int = 256,
        depth: int = 4,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ):
        positive(features=features, out_features=out_features, width=width, depth=depth, num_classes=num_classes)
        super().__init__(width, width, num_classes)
        self.features = features
        self.first = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, out_features or features)
        zeroed(self.last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction (B, ``out_features``) for x (B, ``features``) float, times t (B,) and labels (B,) int64 or None.

        Raises:
            ArgumentError: A shape does not fit, or a label is given to a network without classes.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ArgumentError(f"x has the shape {tuple(x.shape)}; this network takes (batch, {self.features}).")
        embedding = F.silu(self.condition(t, label))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(F.silu(self.norm(h)))


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.embedding = nn.Linear(width, 2 * width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)
        zeroed(self.out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.embedding(embedding).chunk(2, dim=1)
        return x + self.out(self.dropout(F.silu(self.hidden(self.norm(x) * (1 + scale) + shift))))
