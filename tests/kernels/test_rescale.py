"""Guidance rescale (Lin et al. 2023, section 3.4) against exact arithmetic: outputs that are constant or nearly so, and a
conditional output without a weight."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, NonFiniteError
from diffuse_fast.kernels import kernels, step
from diffuse_fast.plans.plan import Reduction, Row

KERNELS = [k.name for k in kernels() if k.device == "cpu" and k.unavailable is None]


def variance(values):
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def factor(conditional, other, scale, phi):
    """phi * std(m_0) / std(m) + 1 - phi, in rational numbers, except for the root."""
    m_0 = [Fraction(float(v)) for v in conditional.ravel()]
    m = [Fraction(scale) * a + (1 - Fraction(scale)) * Fraction(float(b)) for a, b in zip(m_0, other.ravel(), strict=True)]
    return 1.0 if variance(m) == 0 else phi * math.sqrt(variance(m_0) / variance(m)) + 1.0 - phi


def rescaled(kernel, conditional, other, scale, phi):
    """The row's x' = m times the factor."""
    row = Row(b=1.0, g=(scale, 1.0 - scale), reduce=Reduction("guidance_rescale", (phi,)))
    return step(np.zeros_like(conditional), [conditional, other], row, kernel=kernel)


def mixed(conditional, other, scale):
    return scale * conditional.astype(np.float64) + (1.0 - scale) * other.astype(np.float64)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.0, 3.0, 7.5])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 65, 1000])
def test_constant_outputs_keep_their_weights(kernel, scale, n):
    conditional, other = np.full((1, n), 0.7, np.float32), np.full((1, n), 0.2, np.float32)
    expected = mixed(conditional, other, scale)
    np.testing.assert_allclose(rescaled(kernel, conditional, other, scale, 1.0), expected, rtol=5e-7)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("deviation", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
@pytest.mark.parametrize("phi", [1.0, 0.7])
def test_the_factor_is_right_however_small_the_deviation(kernel, deviation, scale, phi):
    rng = np.random.default_rng(7)
    conditional, other = ((1.0 + deviation * rng.standard_normal((1, 150))).astype(np.float32) for _ in range(2))
    m = mixed(conditional, other, scale)
    got = rescaled(kernel, conditional, other, scale, phi)
    # A few float32 roundings of the weights and of the terms, which are larger than their sum.
    atol = 3e-7 * (1 + 2 * scale) * np.abs(m).max()
    np.testing.assert_allclose(got, m * factor(conditional, other, scale, phi), rtol=0, atol=atol)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_outlier_among_equal_values(kernel):
    """The first value, from which differences are taken, is the outlier."""
    conditional, other = np.full((1, 3001), 1e3, np.float32), np.full((1, 3001), 2e3, np.float32)
    conditional[0, 0], other[0, 0] = -7e6, 3.0
    got = rescaled(kernel, conditional, other, 2.0, 1.0)
    np.testing.assert_allclose(got, mixed(conditional, other, 2.0) * factor(conditional, other, 2.0, 1.0), rtol=2e-6, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_conditional_output_without_a_weight_counts(kernel):
    rng = np.random.default_rng(2)
    conditional, other = ((s * rng.standard_normal((2, 37))).astype(np.float32) for s in (0.001, 3.0))
    got = rescaled(kernel, conditional, other, 0.0, 0.7)
    for i in range(2):
        expected = other[i].astype(np.float64) * factor(conditional[i], other[i], 0.0, 0.7)
        np.testing.assert_allclose(got[i], expected, rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_conditional_output_without_a_weight_is_required_and_checked(kernel):
    row = Row(b=1.0, g=(0.0, 1.0), reduce=Reduction("guidance_rescale", (0.7,)))
    x, bad = np.ones((2, 5), np.float32), np.ones((2, 5), np.float32)
    with pytest.raises(ArgumentError, match="reads 2 model outputs; 1 were given"):
        step(x, x.copy(), row, kernel=kernel)
    bad[1, 3] = np.nan
    with pytest.raises(NonFiniteError, match="sample 1"):
        step(x, [bad, np.arange(10, dtype=np.float32).reshape(2, 5)], row, kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_conditional_output_is_looked_at_beside_a_constant_one(kernel):
    """A constant mixture keeps its weights, but not where what it is compared with is not finite."""
    row = Row(b=1.0, g=(0.0, 1.0), reduce=Reduction("guidance_rescale", (0.7,)))
    x, bad = np.ones((2, 5), np.float32), np.ones((2, 5), np.float32)
    bad[1, 3] = np.nan
    with pytest.raises(NonFiniteError, match="sample 1"):
        step(x, [bad, np.full((2, 5), 0.25, np.float32)], row, kernel=kernel)
