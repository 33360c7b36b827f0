"""Random networks: odd and non-square sizes, channels of no round number, groups, strides, heads."""

# ruff: noqa: E402 (without torch the imports below fail)

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from torch import nn

from diffuse_fast import _core
from diffuse_fast.onnx import network as reader
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.lower import lower
from diffuse_fast.program.reference import Reference
from diffuse_fast.runtimes.native import load
from tests.program.families import Family

F = nn.functional
ISAS = [name for name, reason in _core.kernels() if reason is None]


class Layer(nn.Module):
    """One layer of a random network, which adds the time."""

    def __init__(self, draw, channels):
        super().__init__()
        self.kind = draw(st.sampled_from(["convolution", "transposed", "attention", "norm", "resize", "pool", "residual"]))
        divisors = [n for n in range(1, channels + 1) if channels % n == 0]
        groups = draw(st.sampled_from(divisors))
        self.activation = draw(st.sampled_from([F.silu, F.gelu, F.mish, F.relu, torch.tanh, F.elu]))
        self.time = nn.Linear(4, channels)
        self.norm = nn.GroupNorm(groups, channels)
        if self.kind == "convolution":
            kernel, stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3))
            padding = tuple(d * (k - 1) // 2 + draw(st.integers(0, 1)) for k, d in zip(kernel, dilation, strict=True))
            out = groups * draw(st.integers(1, max(1, 12 // groups)))
            self.layer = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
        elif self.kind == "transposed":
            kernel, stride = (draw(st.tuples(st.integers(1, 4), st.integers(1, 2))) for _ in range(2))
            out = groups * draw(st.integers(1, max(1, 8 // groups)))
            self.layer = nn.ConvTranspose2d(channels, out, kernel, stride, groups=groups)
        elif self.kind == "attention":
            self.heads = draw(st.sampled_from(divisors))
            self.layer = nn.Linear(channels, 3 * channels)
        elif self.kind == "residual":
            self.layer = nn.Conv2d(channels, channels, 3, padding=1)
        elif self.kind == "resize":
            self.to = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
            self.mode = draw(st.sampled_from(["nearest", "bilinear"]))

    def forward(self, x, embedding):
        x = x + self.time(embedding)[:, :, None, None]
        batch, channels, height, width = x.shape
        if self.kind == "attention":
            tokens = self.layer(self.norm(x).flatten(2).transpose(1, 2))
            q, k, v = tokens.reshape(batch, height * width, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, height * width, channels)
            return x + h.transpose(1, 2).reshape(x.shape)
        if self.kind == "norm":
            return self.activation(self.norm(x))
        if self.kind == "resize":
            return F.interpolate(x, scale_factor=self.to, mode=self.mode)
        if self.kind == "pool":
            return F.avg_pool2d(x, 2, 1, 1, count_include_pad=self.norm.num_groups % 2 == 0)
        if self.kind == "residual":
            return torch.cat([x, x + self.layer(self.activation(self.norm(x)))], 1)
        return self.activation(self.layer(self.norm(x)))


class RandomNetwork(nn.Module):
    def __init__(self, draw, channels, size):
        super().__init__()
        self.embedding = nn.Linear(1, 4)
        self.layers = nn.ModuleList()
        with torch.no_grad():
            x, embedding = torch.zeros(2, channels, *size), torch.zeros(2, 4)
            for _ in range(draw(st.integers(1, 4))):
                layer = Layer(draw, x.shape[1])
                with contextlib.suppress(RuntimeError):  # a kernel larger than the image
                    result = layer(x, embedding)
                    if result.numel() <= 6000:
                        x = result
                        self.layers.append(layer)

    def forward(self, x, t):
        embedding = F.silu(self.embedding(t[:, None]))
        for layer in self.layers:
            x = layer(x, embedding)
        return x


@st.composite
def random_networks(draw):
    channels, size = draw(st.integers(1, 13)), draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    module = RandomNetwork(draw, channels, size)
    return Family("random", lambda: module, (channels, *size), "unit")


def check(family, path):
    """Compare the program of a family, lowered and fused, with torch in float64: the reference, and the core."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        module = family.module
        family.export_by_tracing(path)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    draft = lower(reader.read(path), 997)
    x, t = family.inputs(3)
    exact = module.double()(x.double(), t.double()).numpy()
    scale = max(np.abs(exact).max(), 1e-3)
    for program in (finish(draft), finish(fuse(draft))):
        error = np.abs(Reference(program, weights)(x.numpy(), t.numpy()) - exact).max()
        assert error <= 1e-6 * scale
        results = [in_the_core(load(program, weights, isa), x.numpy(), t.numpy()) for isa in ISAS]
        assert np.abs(results[0].reshape(exact.shape) - exact).max() <= 1e-5 * scale
        assert len({result.tobytes() for result in results}) == 1


def in_the_core(core, x, t):
    y = np.full((len(x), core.output_size), np.nan, np.float32)
    core.run(x, y, core.prepare_times(t), core.prepare_conditions([], len(x)))
    return y


COMMON = {"derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=10, **COMMON)
@given(random_networks())
def test_random_networks(tmp_path, family):
    check(family, tmp_path / "random.onnx")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=200, **COMMON)
@given(random_networks())
def test_many_random_networks(tmp_path, family):
    check(family, tmp_path / "random.onnx")
