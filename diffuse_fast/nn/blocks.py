"""The blocks of a UNet in one, two or three dimensions, as in DDPM (Ho et al. 2020, appendix B), Improved DDPM
(Nichol & Dhariwal 2021) and ADM (Dhariwal & Nichol 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def convolution(dims: int, channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution over ``dims`` axes that preserves their sizes (at stride 1)."""
    return CONVOLUTION[dims](channels, out_channels, kernel, stride=stride, padding=kernel // 2)


def zeroed(layer: nn.Module) -> nn.Module:
    """Set the weights and bias of a layer to 0, so that a residual block that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))) + W·embedding)))), with a 1x1 shortcut where the width changes.

    With ``scale_shift`` the embedding acts after the second norm, as norm(h)·(1 + scale) + shift (Improved DDPM, section
    4). ``resample`` -1 halves and 1 doubles the sizes of both branches inside the block (BigGAN's, ADM section 3).
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        out_channels: int,
        embedding: int,
        groups: int,
        dropout: float,
        *,
        scale_shift: bool = False,
        resample: int = 0,
    ):
        super().__init__()
        self.dims, self.scale_shift = dims, scale_shift
        self.norm1 = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.conv1 = convolution(dims, channels, out_channels, 3)
        self.embedding = nn.Linear(embedding, 2 * out_channels if scale_shift else out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(dims, out_channels, out_channels, 3)
        self.shortcut = convolution(dims, channels, out_channels, 1) if channels != out_channels else nn.Identity()
        self.resample = {-1: POOL[dims](2), 0: nn.Identity(), 1: nn.Upsample(scale_factor=2.0, mode="nearest")}[resample]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        projected = self.embedding(embedding).unflatten(1, (-1, *[1] * self.dims))
        if self.scale_shift:
            scale, shift = projected.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + projected)
        return self.shortcut(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))


class SelfAttention(nn.Module):
    """x + self-attention between the positions of x (B, C, *sizes).

    Written with ``scaled_dot_product_attention`` on 4-D inputs (B, heads, places, C/heads), which exports to one
    Attention node.
    """

    def __init__(self, channels: int, heads: int, groups: int, dims: int = 2):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.qkv = convolution(dims, channels, 3 * channels, 1)
        self.out = convolution(dims, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        channels, sizes = x.shape[1], x.shape[2:]
        q, k, v = (
            part.unflatten(1, (self.heads, channels // self.heads)).flatten(3).transpose(2, 3)
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(2, 3).flatten(1, 2).unflatten(2, sizes))


class Downsample(nn.Module):
    """Downsample by 2 with a convolution of stride 2."""

    def __init__(self, channels: int, dims: int = 2):
        super().__init__()
        self.conv = convolution(dims, channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Upsample by 2: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, dims: int = 2):
        super().__init__()
        self.conv = convolution(dims, channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
