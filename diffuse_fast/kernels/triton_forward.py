"""The forward process of ``csrc/step/forward.h`` in Triton: one program per piece of a sample. Loaded by :mod:`.triton`.

12 bytes per element: x0 is read, x_t and the target are written; the noise is drawn in registers. The arithmetic follows the CPU's
to the bit: the first term is a product, the second a fused multiply-add, and a term whose coefficient is 0 is skipped.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .reference import STREAM_TRAINING
from .triton_noise import normals
from .triton_step import here

# 32-bit words per sample: alpha, sigma, the target's coefficients of x0 and z, the index, the two halves of the seed, the step.
WORDS = 8
_WORDS = tl.constexpr(WORDS)
_STREAM_TRAINING = tl.constexpr(STREAM_TRAINING)


@triton.jit
def combined(a, x, b, z):
    """a*x + b*z. A sum starts at -0: its first term is then a product, rounded once, which keeps the sign of a zero."""
    nothing = tl.full(x.shape, -0.0, tl.float32)
    total = tl.where(a != 0.0, tl.fma(a, x, nothing), nothing)
    total = tl.where(b != 0.0, tl.fma(b, z, total), total)
    return tl.where((a != 0.0) | (b != 0.0), total, 0.0)


@triton.jit
def word(parameters, number: tl.constexpr):
    return tl.load(parameters + number).to(tl.uint32, bitcast=True)


@triton.jit
def coefficient(parameters, number: tl.constexpr):
    return tl.load(parameters + number).to(tl.float32, bitcast=True)


@triton.jit
def forward_kernel(
    x0,
    noise,
    x_t,
    target,
    parameters,
    samples,
    elements,
    GIVEN: tl.constexpr,
    WITH_TARGET: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes x_t, and the target if there is one (WITH_TARGET).

    Args:
        x0, noise, x_t, target: float32, (samples, elements). GIVEN: whether the noise is read instead of drawn.
        parameters: int32, ``WORDS`` words per sample, as bits.
        WHOLE: every piece is inside the sample.
    """
    piece, sample = here()
    samples = tl.to_tensor(samples).to(tl.int64)  # triton passes the number 1 as a constant
    if sample >= samples:
        return
    row = parameters + sample * _WORDS
    base = piece * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = None if WHOLE else lane < tl.minimum(elements - base, BLOCK).to(tl.int32)
    at = sample * elements + base
    x = tl.load(x0 + at + lane, mask=inside)
    if GIVEN:
        z = tl.load(noise + at + lane, mask=inside)
    else:
        seed = word(row, 5).to(tl.uint64) | (word(row, 6).to(tl.uint64) << 32)
        z = normals(seed, (piece * (BLOCK // 4)).to(tl.uint32), word(row, 7), word(row, 4), _STREAM_TRAINING, BLOCK)
    tl.store(x_t + at + lane, combined(coefficient(row, 0), x, coefficient(row, 1), z), mask=inside)
    if WITH_TARGET:
        tl.store(target + at + lane, combined(coefficient(row, 2), x, coefficient(row, 3), z), mask=inside)
