"""The parts a UNet is made of, as in DDPM (Ho et al. 2020, appendix B)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias 0: a branch that ends in it starts as nothing, its block as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """Times (B,), whole or fractional, to vectors (B, ``out_channels``): sinusoids (Vaswani et al. 2017), then an
    MLP."""

    frequencies: Tensor

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        half = channels // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / max(half - 1, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.hidden = nn.Linear(channels, out_channels)
        self.out = nn.Linear(out_channels, out_channels)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.to(self.frequencies.dtype)[:, None] * self.frequencies
        return self.out(F.silu(self.hidden(torch.cat([angles.sin(), angles.cos()], dim=1))))


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))) + W·embedding)))), with a 1x1 shortcut where the width changes."""

    def __init__(self, channels: int, out_channels: int, embedding: int, groups: int, dropout: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.embedding(embedding)[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))


class SelfAttention(nn.Module):
    """x + attention between the pixels of x (B, C, H, W).

    Written with ``scaled_dot_product_attention`` on 4-D inputs (B, heads, H·W, C/heads), which exports to one
    Attention node.
    """

    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        q, k, v = (
            part.unflatten(1, (self.heads, channels // self.heads)).flatten(3).transpose(2, 3)
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width)))


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
