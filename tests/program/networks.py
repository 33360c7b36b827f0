"""Small networks in the forms in which their families are published, where no installed package has them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoids(t, width, period=10000):
    half = width // 2
    frequencies = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


# ---- guided-diffusion (Dhariwal and Nichol) -------------------------------------------------------


class GroupNorm32(nn.GroupNorm):
    def forward(self, x):
        return super().forward(x.float()).type(x.dtype)


class GuidedBlock(nn.Module):
    def __init__(self, channels, width, out, up=False, down=False):
        super().__init__()
        self.up, self.down = up, down
        self.enter = nn.Sequential(GroupNorm32(4, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out))
        self.leave = nn.Sequential(GroupNorm32(4, out), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def resample(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else F.avg_pool2d(x, 2, 2) if self.down else x

    def forward(self, x, embedding):
        h = self.enter[-1](self.resample(self.enter[:-1](x)))
        e = self.embedding(embedding).type(h.dtype)
        while len(e.shape) < len(h.shape):
            e = e[..., None]
        scale, shift = torch.chunk(e, 2, dim=1)
        h = self.leave[0](h) * (1 + scale) + shift
        return self.skip(self.resample(x)) + self.leave[1:](h)


class GuidedAttention(nn.Module):
    """QKVAttentionLegacy: heads, then q, k and v; both q and k are scaled; products are written as einsum."""

    def __init__(self, channels, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm32(4, channels)
        self.qkv = nn.Conv1d(channels, channels * 3, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        batch, channels, *spatial = x.shape
        x = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(x))
        width, length = channels // self.heads, qkv.shape[2]
        q, k, v = qkv.reshape(batch * self.heads, width * 3, length).split(width, dim=1)
        scale = 1 / math.sqrt(math.sqrt(width))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, -1, length)
        return (x + self.out(h)).reshape(batch, channels, *spatial)


class Guided(nn.Module):
    def __init__(self, c=8, width=24, classes=10):
        super().__init__()
        self.channels = c
        self.time = nn.Sequential(nn.Linear(c, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width)
        self.first = nn.Conv2d(3, c, 3, padding=1)
        self.down1, self.down = GuidedBlock(c, width, c), GuidedBlock(c, width, c, down=True)
        self.down2, self.attend1 = GuidedBlock(c, width, 2 * c), GuidedAttention(2 * c)
        self.middle1, self.attend = GuidedBlock(2 * c, width, 2 * c), GuidedAttention(2 * c)
        self.middle2 = GuidedBlock(2 * c, width, 2 * c)
        self.up1, self.attend2 = GuidedBlock(4 * c, width, 2 * c), GuidedAttention(2 * c)
        self.up, self.up2 = GuidedBlock(2 * c, width, 2 * c, up=True), GuidedBlock(3 * c, width, c)
        self.last = nn.Sequential(GroupNorm32(4, c), nn.SiLU(), nn.Conv2d(c, 6, 3, padding=1))

    def forward(self, x, t, label):
        e = self.time(sinusoids(t, self.channels)) + self.label(label)
        first = self.down1(self.first(x), e)
        second = self.attend1(self.down2(self.down(first, e), e))
        h = self.middle2(self.attend(self.middle1(second, e)), e)
        h = self.up(self.attend2(self.up1(torch.cat([h, second], 1), e)), e)
        return self.last(self.up2(torch.cat([h, first], 1), e))


# ---- diffusion policy (Chi et al.) ----------------------------------------------------------------


class PolicyConvolution(nn.Sequential):
    def __init__(self, channels, out, kernel=5, groups=4):
        super().__init__(nn.Conv1d(channels, out, kernel, padding=kernel // 2), nn.GroupNorm(groups, out), nn.Mish())


class PolicyBlock(nn.Module):
    def __init__(self, channels, out, width):
        super().__init__()
        self.out = out
        self.blocks = nn.ModuleList([PolicyConvolution(channels, out), PolicyConvolution(out, out)])
        self.condition = nn.Sequential(nn.Mish(), nn.Linear(width, 2 * out), nn.Unflatten(-1, (-1, 1)))
        self.skip = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x, condition):
        h = self.blocks[0](x)
        embedding = self.condition(condition).reshape(x.shape[0], 2, self.out, 1)
        h = embedding[:, 0, ...] * h + embedding[:, 1, ...]
        return self.blocks[1](h) + self.skip(x)


class SinusoidalPosition(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        half = self.width // 2
        scale = math.log(10000) / (half - 1)
        at = torch.exp(torch.arange(half, device=x.device) * -scale)
        at = x[:, None] * at[None, :]
        return torch.cat((at.sin(), at.cos()), dim=-1)


class Policy(nn.Module):
    """ConditionalUnet1D: actions over time, (batch, horizon, actions), conditioned on an observation."""

    def __init__(self, actions=3, observation=10, widths=(12, 24), width=16):
        super().__init__()
        a, b = widths
        both = width + observation
        embedding = (SinusoidalPosition(width), nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.time = nn.Sequential(*embedding)
        self.down1 = nn.ModuleList([PolicyBlock(actions, a, both), PolicyBlock(a, a, both)])
        self.down = nn.Conv1d(a, a, 3, 2, 1)
        self.down2 = nn.ModuleList([PolicyBlock(a, b, both), PolicyBlock(b, b, both)])
        self.middle = nn.ModuleList([PolicyBlock(b, b, both), PolicyBlock(b, b, both)])
        self.up1 = nn.ModuleList([PolicyBlock(2 * b, a, both), PolicyBlock(a, a, both)])
        self.up = nn.ConvTranspose1d(a, a, 4, 2, 1)
        self.last = nn.Sequential(PolicyConvolution(a, a), nn.Conv1d(a, actions, 1))

    def forward(self, x, t, observation):
        x = x.permute(0, 2, 1)
        condition = torch.cat([self.time(t), observation], -1)
        for block in self.down1:
            x = block(x, condition)
        x = self.down(x)
        for block in self.down2:
            x = block(x, condition)
        skip = x
        for block in self.middle:
            x = block(x, condition)
        x = torch.cat((x, skip), dim=1)
        for block in self.up1:
            x = block(x, condition)
        return self.last(self.up(x)).permute(0, 2, 1)


# ---- transformers in the form of facebook/DiT and timm --------------------------------------------


class PatchBlock(nn.Module):
    def __init__(self, width, heads, *, qk_norm=False, rope=False, rms=False):
        super().__init__()
        norm = nn.RMSNorm if rms else lambda n: nn.LayerNorm(n, elementwise_affine=False, eps=1e-6)
        self.heads, self.rope = heads, rope
        self.norm1, self.norm2 = norm(width), norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        head = width // heads
        self.q_norm = nn.RMSNorm(head) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head) if qk_norm else nn.Identity()

    def rotate(self, x):
        tokens, half = x.shape[-2], x.shape[-1] // 2
        angles = torch.arange(tokens)[:, None] * torch.exp(-torch.arange(half) / half * 4.5)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)

    def attend(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope:
            q, k = self.rotate(q), self.rotate(k)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, 1)
        x = x + gate1.unsqueeze(1) * self.attend(self.norm1(x) * (1 + scale1.unsqueeze(1)) + shift1.unsqueeze(1))
        return x + gate2.unsqueeze(1) * self.mlp(self.norm2(x) * (1 + scale2.unsqueeze(1)) + shift2.unsqueeze(1))


class PatchTransformer(nn.Module):
    def __init__(self, width=24, heads=2, **block):
        super().__init__()
        self.patches = nn.Conv2d(4, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(PatchBlock(width, heads, **block) for _ in range(2))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.last = nn.Linear(width, 2 * 2 * 4)

    def forward(self, x, t, label):
        h = self.patches(x).flatten(2).transpose(1, 2) + self.position
        c = self.time(sinusoids(t, 16)) + self.label(label)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c).chunk(2, dim=1)
        h = self.last(self.norm(h) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1))
        h = torch.einsum("nhwpqc->nchpwq", h.reshape(x.shape[0], 4, 4, 2, 2, 4))
        return h.reshape(x.shape[0], 4, 8, 8)


# ---- multilayer perceptrons -----------------------------------------------------------------------


class ResidualMLP(nn.Module):
    def __init__(self, features=2, width=32):
        super().__init__()
        self.time = nn.Sequential(SinusoidalPosition(width), nn.Linear(width, width), nn.SiLU())
        self.first = nn.Linear(features, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, features)

    def forward(self, x, t):
        h = self.first(x) + self.time(t)
        for layer in self.layers:
            h = h + F.gelu(layer(h))
        return self.last(self.norm(h))


class ConcatenatingMLP(nn.Module):
    """The time is one more feature, as in many a toy script; activations of several kinds."""

    def __init__(self, features=3, width=20):
        super().__init__()
        activations = (nn.ELU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.Tanh(), nn.Hardswish())
        layers = [nn.Linear(features + 1, width)]
        for activation in activations:
            layers += [activation, nn.Linear(width, width)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Linear(width, features))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None] / 1000], -1))
