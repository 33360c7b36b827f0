"""DiT, the diffusion transformer (Peebles & Xie 2023, "Scalable Diffusion Models with Transformers"), with adaLN-Zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .blocks import NORM_EPS, zeroed
from .embedding import Conditioned, positive

FREQUENCIES = 256  # sinusoids of the time, as in the paper's code


class DiT(Conditioned):
    """A transformer over patches of an image that predicts ε, x0 or v.

    ==========  ===============================================
    DiT-S       ``width=384, depth=12, heads=6`` (the defaults)
    DiT-B       ``width=768, depth=12, heads=12``
    DiT-L       ``width=1024, depth=24, heads=16``
    DiT-XL      ``width=1152, depth=28, heads=16``
    ==========  ===============================================

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the prediction; those of x unless given (twice as many for a learned variance).
        size: Height and width of x.
        patch: Height and width of a patch; a divisor of ``size``.
        width: Channels of a token; a multiple of 4 and of ``heads``.
        depth: Number of blocks.
        heads: Attention heads.
        num_classes: None, or the number of classes, to which the null class is added (:class:`Conditioned`).

    Raises:
        ArgumentError: ``patch`` does not divide ``size``, ``width`` is no such multiple, a count is below 1.

    Example:
        >>> import torch, diffuse_fast as df
        >>> network = df.nn.DiT(4, size=8, width=64, depth=2, heads=2, num_classes=10)
        >>> network(torch.zeros(3, 4, 8, 8), torch.tensor([0, 10, 999])).shape
        torch.Size([3, 4, 8, 8])
    """

    positions: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        size: int = 32,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        num_classes: int | None = None,
    ):
        positive(
            in_channels=in_channels,
            out_channels=out_channels,
            size=size,
            patch=patch,
            width=width,
            depth=depth,
            heads=heads,
            num_classes=num_classes,
        )
        if size % patch:
            raise ArgumentError(f"patch is {patch}; it must divide size, which is {size}.")
        if width % 4 or width % heads:
            raise ArgumentError(f"width is {width}; it must be a multiple of 4 and of heads, which is {heads}.")
        super().__init__(FREQUENCIES, width, num_classes)
        self.in_channels, self.size, self.patch = in_channels, size, patch
        self.first = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.register_buffer("positions", sinusoids(width, size // patch), persistent=False)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, patch * patch * (out_channels or in_channels))
        self._initialise()

    def _initialise(self) -> None:
        """As in the paper's code: fan-average uniform weights, zero biases, embeddings of deviation 0.02, and zero where a
        block's modulation or the network ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.first.weight.flatten(1))
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]  # it has a bias
        for layer in (self.time.hidden, self.time.out, self.label):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, _Block):
                zeroed(module.modulation)
        zeroed(self.modulation)
        zeroed(self.last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction for ``x``.

        Args:
            x: (B, ``in_channels``, ``size``, ``size``) float.
            t: (B,) times, int64 or float.
            label: (B,) int64 in [0, ``num_classes``], where ``num_classes`` is the null class; None is all null.

        Returns:
            (B, ``out_channels``, ``size``, ``size``), the dtype of ``x``.

        Raises:
            ArgumentError: A shape does not fit, or a label is given to a network without classes.
        """
        if x.shape[1:] != (self.in_channels, self.size, self.size):
            raise ArgumentError(
                f"x has the shape {tuple(x.shape)}; this network takes (batch, {self.in_channels}, {self.size}, {self.size})."
            )
        embedding = F.silu(self.condition(t, label))
        h = self.first(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        h = self.last(self.norm(h) * (1 + scale) + shift)
        # (B, rows·columns, patch·patch·channels) -> (B, channels, rows·patch, columns·patch)
        side = self.size // self.patch
        h = h.unflatten(1, (side, side)).unflatten(3, (self.patch, self.patch, -1))
        return h.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class _Block(nn.Module):
    """x + gate·attention(modulated norm(x)), then the same with an MLP four times as wide (the paper's figure 3)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        h = self.norm(x) * (1 + scale1) + shift1
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(h).chunk(3, dim=2))
        x = x + gate1 * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


def sinusoids(width: int, side: int) -> Tensor:
    """The position embedding of a side x side grid, (side², width) float32. Half of the channels are sines and cosines of
    the column, half of the row, at frequencies 10000^(-4i/width)."""
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    place = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = place.expand(side, side, -1), place[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float()
