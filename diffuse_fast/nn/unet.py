"""The UNet of DDPM (Ho et al. 2020, appendix B), Improved DDPM and ADM, with class conditioning, over one to three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .blocks import NORM_EPS, Downsample, ResidualBlock, SelfAttention, Upsample, convolution, zeroed
from .embedding import Conditioned, positive

RESAMPLES = ("conv", "resnet")


class UNet(Conditioned):
    """A 2-D UNet that predicts ε, x0 or v from a noised image and its time.

    Level l works at resolution H/2^l with ``channels * multipliers[l]`` channels and ``blocks`` residual blocks on the
    way down, one more on the way up. Between the ways are two residual blocks with self-attention, at the lowest
    resolution.

    ======================  ========================================================================================
    DDPM, CIFAR-10          ``UNet(3, multipliers=(1, 2, 2, 2), attention_levels=(1,), dropout=0.1)``
    Improved DDPM, 64x64    ``UNet(3, 6, multipliers=(1, 2, 3, 4), blocks=3, attention_levels=(2, 3), heads=4, scale_shift=True)``
    ADM, 64x64              ``UNet(3, 6, channels=192, multipliers=(1, 2, 3, 4), blocks=3, attention_levels=(1, 2, 3),
                            head_channels=64, scale_shift=True, resample="resnet", num_classes=1000)``
    ======================  ========================================================================================

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the prediction; None is those of x (use twice as many for a learned variance).
        channels: Base width.
        multipliers: Width of each level as a multiple of ``channels``; their number is the number of resolutions.
        blocks: Residual blocks per level.
        attention_levels: Levels whose residual blocks are followed by self-attention (the middle always has it).
        heads: Attention heads.
        head_channels: Channels per attention head, instead of a number of heads.
        groups: Groups of the GroupNorms; None is the largest power of 2 up to 32 that divides every width.
        dropout: Dropout in residual blocks during training.
        scale_shift: Time and class scale and shift the norms (Improved DDPM) instead of being added before them. Such a network
            starts with torch's default weights, as in that paper's code; the others with DDPM's fan-average uniform ones.
        resample: How to change the resolution: ``conv``, or residual blocks that resample inside, ``resnet`` (ADM).
        num_classes: None, or the number of classes, to which the null class is added (:class:`Conditioned`).

    Raises:
        ArgumentError: A width does not divide by ``groups`` or ``heads``, a level does not exist, a count is below 1.

    Example:
        >>> import torch, diffuse_fast as df
        >>> network = df.nn.UNet(1, channels=32, num_classes=10)
        >>> x, t = torch.zeros(3, 1, 8, 8), torch.tensor([0, 10, 999])
        >>> network(x, t, torch.tensor([4, 2, 10])).shape
        torch.Size([3, 1, 8, 8])
    """

    dims: ClassVar[int] = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        channels: int = 128,
        multipliers: Sequence[float] = (1, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (),
        heads: int = 1,
        head_channels: int | None = None,
        groups: int | None = None,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: str = "conv",
        num_classes: int | None = None,
    ):
        positive(
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            blocks=blocks,
            heads=heads,
            head_channels=head_channels,
            groups=groups,
            num_classes=num_classes,
        )
        if not multipliers:
            raise ArgumentError("multipliers is empty; a UNet needs at least one level, such as multipliers=(1, 2).")
        if bad := [m for m in multipliers if not (m > 0 and float(channels * m).is_integer())]:
            raise ArgumentError(f"multipliers has {bad}; channels, which is {channels}, times each must be a positive integer.")
        widths = [int(channels * m) for m in multipliers]
        if bad := [level for level in attention_levels if not 0 <= level < len(multipliers)]:
            raise ArgumentError(f"attention_levels names {bad}; the levels are 0 to {len(multipliers) - 1}.")
        if channels % 2:
            raise ArgumentError(f"channels is {channels}; it must be even: half are sines of the time and half cosines.")
        if groups is None:
            groups = math.gcd(32, *widths)
        if bad := [width for width in widths if width % groups]:
            raise ArgumentError(f"channels is {channels}; the widths {bad} must be multiples of groups, which is {groups}.")
        if head_channels is not None and heads != 1:
            raise ArgumentError(f"heads is {heads} and head_channels is {head_channels}; give one of them.")
        attended = {widths[level] for level in (*attention_levels, len(widths) - 1)}
        name, divisor = ("heads", heads) if head_channels is None else ("head_channels", head_channels)
        if bad := sorted(width for width in attended if width % divisor):
            raise ArgumentError(f"{name} is {divisor}; it must divide the widths {bad}.")
        if resample not in RESAMPLES:
            raise ArgumentError(f"resample is {resample!r}; it must be one of {', '.join(RESAMPLES)}.")

        embedding = 4 * channels
        super().__init__(channels, embedding, num_classes)
        self.in_channels = in_channels
        self.reduction = 2 ** (len(multipliers) - 1)
        dims = self.dims

        def residual(width: int, out: int, resampled: int = 0) -> ResidualBlock:
            return ResidualBlock(dims, width, out, embedding, groups, dropout, scale_shift=scale_shift, resample=resampled)

        def attention(width: int) -> SelfAttention:
            return SelfAttention(width, heads if head_channels is None else width // head_channels, groups, dims)

        def attended_at(level: int) -> nn.Module:
            return attention(widths[level]) if level in attention_levels else nn.Identity()

        self.first = convolution(dims, in_channels, widths[0], 3)

        # Widths of the skip connections, last first.
        kept = [widths[0]]
        width = widths[0]
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.down.append(nn.ModuleList([residual(width, out), attended_at(level)]))
                width = out
                kept.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([residual(width, width, -1) if resample == "resnet" else Downsample(width, dims)]))
                kept.append(width)

        self.middle = nn.ModuleList([residual(width, width), attention(width), residual(width, width)])

        self.up = nn.ModuleList()
        self.takes: list[bool] = []  # whether each block of the up path takes a skip connection
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(nn.ModuleList([residual(width + kept.pop(), out), attended_at(level)]))
                self.takes.append(True)
                width = out
            if level > 0:
                self.up.append(nn.ModuleList([residual(width, width, 1) if resample == "resnet" else Upsample(width, dims)]))
                self.takes.append(False)

        self.norm = nn.GroupNorm(groups, width, eps=NORM_EPS)
        self.last = convolution(dims, width, out_channels or in_channels, 3)
        self._initialise(fan_average=not scale_shift)

    def _initialise(self, *, fan_average: bool) -> None:
        """DDPM's fan-average uniform weights and zero biases, or torch's own; and zero where a residual branch or the network
        ends."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and fan_average:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zeroed(module.conv2)
            elif isinstance(module, SelfAttention):
                zeroed(module.out)
        zeroed(self.last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction for ``x``.

        Args:
            x: (B, ``in_channels``, *sizes) float; the sizes (two for images) divide by 2^(levels − 1).
            t: (B,) times, int64 or float.
            label: (B,) int64 in [0, ``num_classes``], where ``num_classes`` is the null class; None is all null.

        Returns:
            (B, ``out_channels``, *sizes), the dtype of ``x``.

        Raises:
            ArgumentError: A shape does not fit, or a label is given to a network without classes.
        """
        if x.ndim != 2 + self.dims or x.shape[1] != self.in_channels or any(size % self.reduction for size in x.shape[2:]):
            raise ArgumentError(
                f"x has the shape {tuple(x.shape)}; this network takes (batch, {self.in_channels}, "
                f"{', '.join(('D', 'H', 'W')[3 - self.dims :])}) with sizes that are multiples of {self.reduction}."
            )
        embedding = F.silu(self.condition(t, label))
        h = self.first(x)
        kept = [h]
        for stage in self.down.children():
            h = _run(stage, h, embedding)
            kept.append(h)
        h = _run(self.middle, h, embedding)
        for stage, takes in zip(self.up.children(), self.takes, strict=True):
            if takes:
                h = torch.cat([h, kept.pop()], dim=1)
            h = _run(stage, h, embedding)
        return self.last(F.silu(self.norm(h)))


class UNet1D(UNet):
    """A :class:`UNet` over one axis: audio, trajectories (Janner et al. 2022); x is (B, ``in_channels``, W).

    Example:
        >>> import torch, diffuse_fast as df
        >>> df.nn.UNet1D(2, channels=32)(torch.zeros(3, 2, 64), torch.tensor([0, 10, 999])).shape
        torch.Size([3, 2, 64])
    """

    dims: ClassVar[int] = 1


class UNet3D(UNet):
    """A :class:`UNet` over three axes: volumes, short clips; x is (B, ``in_channels``, D, H, W).

    Example:
        >>> import torch, diffuse_fast as df
        >>> df.nn.UNet3D(1, channels=32)(torch.zeros(2, 1, 4, 8, 8), torch.tensor([0, 10])).shape
        torch.Size([2, 1, 4, 8, 8])
    """

    dims: ClassVar[int] = 3


def _run(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in stage.children():
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h
