"""The UNet of DDPM (Ho et al. 2020, appendix B), with class conditioning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .blocks import NORM_EPS, Downsample, ResidualBlock, SelfAttention, TimeEmbedding, Upsample, zeroed


class UNet(nn.Module):
    """A 2-D UNet that predicts ε, x0 or v from a noised image and its time.

    Level l works at resolution H/2^l with ``channels * multipliers[l]`` channels and ``blocks`` residual blocks on the
    way down, one more on the way up. Between the ways are two residual blocks with self-attention, at the lowest
    resolution.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the prediction; those of x unless given (twice as many for a learned variance).
        channels: Width at full resolution; a multiple of ``groups``.
        multipliers: Width of each level as a multiple of ``channels``; their number is the number of resolutions.
        blocks: Residual blocks per level.
        attention_levels: Levels whose residual blocks are followed by self-attention (the middle has it always).
        heads: Attention heads.
        groups: Groups of the GroupNorms.
        dropout: Dropout inside residual blocks, in training.
        num_classes: None, or the number of classes. A class-conditional network has one more, the *null class* (its
            number is ``num_classes``), for a label that is not told; classifier-free guidance (Ho & Salimans 2022)
            needs it.

    Raises:
        ArgumentError: A width does not divide by ``groups`` or ``heads``, a level does not exist, a count is below 1.

    Example:
        >>> import torch, diffuse_fast as df
        >>> network = df.nn.UNet(1, channels=32, num_classes=10)
        >>> x, t = torch.zeros(3, 1, 8, 8), torch.tensor([0, 10, 999])
        >>> network(x, t, torch.tensor([4, 2, 10])).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (),
        heads: int = 1,
        groups: int = 32,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ):
        super().__init__()
        for name, count in (
            ("in_channels", in_channels), ("out_channels", out_channels), ("channels", channels), ("blocks", blocks),
            ("heads", heads), ("groups", groups), ("num_classes", num_classes),
            *(("multipliers", m) for m in multipliers),
        ):  # fmt: skip
            if count is not None and count < 1:
                raise ArgumentError(f"{name} is {count}; it must be at least 1.")
        if not multipliers:
            raise ArgumentError("multipliers is empty; a UNet needs one level at least, such as multipliers=(1, 2).")
        if bad := [level for level in attention_levels if not 0 <= level < len(multipliers)]:
            raise ArgumentError(f"attention_levels names {bad}; the levels are 0 to {len(multipliers) - 1}.")
        if channels % groups:
            raise ArgumentError(f"channels is {channels}; it must be a multiple of groups, which is {groups}.")
        widths = [channels * m for m in multipliers]
        if bad := [width for width in widths if width % heads]:
            raise ArgumentError(f"heads is {heads}; it must divide the widths {bad}.")

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.reduction = 2 ** (len(multipliers) - 1)
        embedding = 4 * channels

        def residual(width: int, out: int) -> ResidualBlock:
            return ResidualBlock(width, out, embedding, groups, dropout)

        def attention(level: int) -> nn.Module:
            return SelfAttention(widths[level], heads, groups) if level in attention_levels else nn.Identity()

        self.time = TimeEmbedding(channels, embedding)
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, embedding)
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)

        # What each step of the way down leaves for the way up: its width, last first.
        kept = [channels]
        width = channels
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.down.append(nn.ModuleList([residual(width, out), attention(level)]))
                width = out
                kept.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([Downsample(width)]))
                kept.append(width)

        self.middle = nn.ModuleList(
            [residual(width, width), SelfAttention(width, heads, groups), residual(width, width)]
        )

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(nn.ModuleList([residual(width + kept.pop(), out), attention(level)]))
                width = out
            if level > 0:
                self.up.append(nn.ModuleList([Upsample(width)]))

        self.norm = nn.GroupNorm(groups, width, eps=NORM_EPS)
        self.last = nn.Conv2d(width, out_channels or in_channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """As in DDPM: fan-average uniform weights, zero biases, and zero where a residual branch or the network
        ends."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
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
            x: (B, ``in_channels``, H, W) float; H and W divide by 2^(levels − 1).
            t: (B,) times, int64 or float.
            label: (B,) int64 in [0, ``num_classes``], where ``num_classes`` is the null class; None is all null.

        Returns:
            (B, ``out_channels``, H, W), the dtype of ``x``.

        Raises:
            ArgumentError: A shape does not fit, or a label is given to a network without classes.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.reduction or x.shape[3] % self.reduction:
            raise ArgumentError(
                f"x has the shape {tuple(x.shape)}; this network takes (batch, {self.in_channels}, H, W) "
                f"with H and W multiples of {self.reduction}."
            )
        embedding = self.time(t)
        if self.label is not None and self.num_classes is not None:
            if label is None:
                label = torch.full_like(t, self.num_classes, dtype=torch.int64)
            embedding = embedding + self.label(label)
        elif label is not None:
            raise ArgumentError("this network has no classes, but a label was given; build it with num_classes=...")
        embedding = F.silu(embedding)

        h = self.first(x)
        kept = [h]
        for stage in self.down.children():
            h = _run(stage, h, embedding)
            kept.append(h)
        h = _run(self.middle, h, embedding)
        for stage in self.up.children():
            if not isinstance(next(stage.children()), Upsample):
                h = torch.cat([h, kept.pop()], dim=1)
            h = _run(stage, h, embedding)
        return self.last(F.silu(self.norm(h)))


def _run(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in stage.children():
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h
