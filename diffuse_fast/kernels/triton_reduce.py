"""The reductions of ``csrc/step/step.h`` in Triton: one program per sample computes coefficients and writes the sample's own row.
Loaded by :mod:`.triton`.

The quantile is exact: a radix selection over the bits of the magnitudes, eight at a time, which reads a sample five times. Sums are
float64, in another order than on the CPU, so a float32 coefficient may differ in its last bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .reference import STREAM_ROW
from .rows import REDUCE_CODES
from .triton_noise import normals
from .triton_step import model_output, raw_prediction, read
from .triton_variant import BIT, ROW_WORDS, WORD

_ROW_WORDS = tl.constexpr(ROW_WORDS)
_G, _P, _R, _LO, _HI, _B, _S, _C, _REDUCE_0, _REDUCE = (
    tl.constexpr(WORD[name]) for name in ("g", "p", "r", "lo", "hi", "b", "s", "c", "reduce_0", "reduce")
)
_HAS_P, _HAS_G0, _HAS_G1, _HAS_G2 = (tl.constexpr(BIT[name]) for name in ("p", "g0", "g1", "g2"))
_DYNAMIC_THRESHOLD, _GUIDANCE_RESCALE, _LANGEVIN, _LANGEVIN_GIVEN = (tl.constexpr(code) for code in REDUCE_CODES.values())
_DYNAMIC_THRESHOLD_BIT, _GUIDANCE_RESCALE_BIT, _LANGEVIN_BIT, _LANGEVIN_GIVEN_BIT = (
    tl.constexpr(1 << code) for code in REDUCE_CODES.values()
)
_STREAM_ROW = tl.constexpr(STREAM_ROW)
_INFINITY_BITS = tl.constexpr(0x7F800000)


@triton.jit
def magnitudes(row, x, m_0, m_1, m_2, at, at_output, start, elements, SOME: tl.constexpr, EVERY: tl.constexpr, BLOCK: tl.constexpr):
    """The bits of |p*x + q*m|, ordered like the values, and which of them are inside the sample."""
    lane = tl.arange(0, BLOCK)
    inside = lane < tl.minimum(elements - start, BLOCK).to(tl.int32)
    state = tl.zeros([BLOCK], tl.float32)
    if _HAS_P & SOME:
        state = read(x + at + start, lane, inside, tl.load(row + _P) != 0.0, _HAS_P, EVERY, False)
    m = model_output(row, m_0, m_1, m_2, at_output + start, lane, inside, SOME, EVERY, False)
    return tl.abs(raw_prediction(row, state, m, SOME, EVERY)).to(tl.int32, bitcast=True), inside


@triton.jit
def select_digit(
    found,
    rank,
    row,
    x,
    m_0,
    m_1,
    m_2,
    at,
    at_output,
    elements,
    SHIFT: tl.constexpr,
    ABOVE: tl.constexpr,
    SOME: tl.constexpr,
    EVERY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find bits SHIFT to ABOVE - 1 of a value, given its rank among the values with the same bits from ABOVE on.

    Returns: the bits found so far, the rank among the values that share them, and the number of these values.
    """
    histogram = tl.zeros([256], tl.int64)
    for start in range(0, elements, BLOCK):
        bits, inside = magnitudes(row, x, m_0, m_1, m_2, at, at_output, start, elements, SOME, EVERY, BLOCK)
        if ABOVE < 31:
            inside = inside & ((bits >> ABOVE) == (found >> ABOVE))
        digit = (bits >> SHIFT) & ((1 << (ABOVE - SHIFT)) - 1)
        histogram += tl.histogram(digit, 256, mask=inside).to(tl.int64)
    number = tl.arange(0, 256)
    digit_found = tl.sum((tl.cumsum(histogram, axis=0) <= rank).to(tl.int32), axis=0)
    before = tl.sum(tl.where(number < digit_found, histogram, 0), axis=0)
    equal = tl.sum(tl.where(number == digit_found, histogram, 0), axis=0)
    return found | (digit_found << SHIFT), rank - before, equal


@triton.jit
def dynamic_threshold(row, x, m_0, m_1, m_2, at, at_output, elements, SOME: tl.constexpr, EVERY: tl.constexpr, BLOCK: tl.constexpr):
    """clip(quantile(|p*x + q*m|, ratio), 1, max), float64; 1 if a value is not finite (the step reports the sample)."""
    last = (elements - 1).to(tl.float64)
    position = tl.load(row + _REDUCE_0).to(tl.float64) * last
    below = tl.minimum(position.to(tl.int64), elements - 1)
    found = tl.full([], 0, tl.int32)
    found, rank, equal = select_digit(found, below, row, x, m_0, m_1, m_2, at, at_output, elements, 23, 31, SOME, EVERY, BLOCK)
    found, rank, equal = select_digit(found, rank, row, x, m_0, m_1, m_2, at, at_output, elements, 15, 23, SOME, EVERY, BLOCK)
    found, rank, equal = select_digit(found, rank, row, x, m_0, m_1, m_2, at, at_output, elements, 7, 15, SOME, EVERY, BLOCK)
    found, rank, equal = select_digit(found, rank, row, x, m_0, m_1, m_2, at, at_output, elements, 0, 7, SOME, EVERY, BLOCK)
    greatest = tl.full([], 0, tl.int32)
    following = tl.full([], 0x7FFFFFFF, tl.int32)  # the smallest value above the one found
    for start in range(0, elements, BLOCK):
        bits, inside = magnitudes(row, x, m_0, m_1, m_2, at, at_output, start, elements, SOME, EVERY, BLOCK)
        greatest = tl.maximum(greatest, tl.max(tl.where(inside, bits, 0), axis=0))
        following = tl.minimum(following, tl.min(tl.where(inside & (bits > found), bits, 0x7FFFFFFF), axis=0))
    low = found.to(tl.float32, bitcast=True).to(tl.float64)
    # The next value in rank is an equal one, or the smallest above it; after the last one there is none.
    high = tl.where((rank + 1 < equal) | (below + 1 >= elements), found, following).to(tl.float32, bitcast=True).to(tl.float64)
    quantile = low + (position - below.to(tl.float64)) * (high - low)
    limit = tl.load(row + _REDUCE_0 + 1).to(tl.float64)
    threshold = tl.where(quantile < limit, quantile, limit)
    return tl.where((greatest < _INFINITY_BITS) & (threshold > 1.0), threshold, 1.0)


@triton.jit
def variance(total, squares, count):
    """The variance, from the sums of differences to one value and of their squares: ``variance_of`` in ``csrc/step/reduce.h``."""
    value = (squares - total * total / count) / count
    return tl.where(value < 0.0, 0.0, value)


@triton.jit
def weighted(row, m_0, m_1, m_2, at, lane, inside, SOME: tl.constexpr):
    """m in float64: if all values are close together, the deviations of a rounded m would be its rounding errors."""
    m = tl.zeros(lane.shape, tl.float64)
    if _HAS_G0 & SOME:
        g_0 = tl.load(row + _G)
        m += g_0.to(tl.float64) * read(m_0 + at, lane, inside, g_0 != 0.0, 0, 0, False).to(tl.float64)
    if _HAS_G1 & SOME:
        g_1 = tl.load(row + _G + 1)
        m += g_1.to(tl.float64) * read(m_1 + at, lane, inside, g_1 != 0.0, 0, 0, False).to(tl.float64)
    if _HAS_G2 & SOME:
        g_2 = tl.load(row + _G + 2)
        m += g_2.to(tl.float64) * read(m_2 + at, lane, inside, g_2 != 0.0, 0, 0, False).to(tl.float64)
    return m


@triton.jit
def rescale_factor(row, m_0, m_1, m_2, at_output, elements, SOME: tl.constexpr, BLOCK: tl.constexpr):
    """phi * std(m_0) / std(m) + 1 - phi, float64; 1 if m is constant; NaN if m_0 is not finite (the step reports the sample)."""
    lane = tl.arange(0, BLOCK)
    alone = tl.arange(0, 1)
    first_0 = tl.load(m_0 + at_output).to(tl.float64)
    first_m = tl.sum(weighted(row, m_0, m_1, m_2, at_output, alone, alone == 0, SOME), axis=0)
    sum_0 = tl.zeros([BLOCK], tl.float64)
    squares_0 = tl.zeros([BLOCK], tl.float64)
    sum_m = tl.zeros([BLOCK], tl.float64)
    squares_m = tl.zeros([BLOCK], tl.float64)
    for start in range(0, elements, BLOCK):
        inside = lane < tl.minimum(elements - start, BLOCK).to(tl.int32)
        of_0 = tl.load(m_0 + at_output + start + lane, mask=inside, other=0.0).to(tl.float64) - first_0
        of_m = weighted(row, m_0, m_1, m_2, at_output + start, lane, inside, SOME) - first_m
        of_0 = tl.where(inside, of_0, 0.0)
        of_m = tl.where(inside, of_m, 0.0)
        sum_0 += of_0
        squares_0 += of_0 * of_0
        sum_m += of_m
        squares_m += of_m * of_m
    count = elements.to(tl.float64)
    to = variance(tl.sum(sum_0, axis=0), tl.sum(squares_0, axis=0), count)
    start_from = variance(tl.sum(sum_m, axis=0), tl.sum(squares_m, axis=0), count)
    phi = tl.load(row + _REDUCE_0).to(tl.float64)
    factor = phi * tl.sqrt(to / start_from) + (1.0 - phi)
    return tl.where((start_from > 0.0) | (to != to), factor, 1.0)


@triton.jit
def langevin_size(
    row,
    m_0,
    m_1,
    m_2,
    given,
    seed,
    index,
    noise_row,
    at_output,
    elements,
    first_counter,
    SOME: tl.constexpr,
    EVERY: tl.constexpr,
    GIVEN: tl.constexpr,
    LEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """2 * (snr * |z| / |kappa*m|)^2, float64; 0 if the score is 0. GIVEN: z is read from ``given``."""
    lane = tl.arange(0, BLOCK)
    squares_z = tl.zeros([BLOCK], tl.float64)
    squares_m = tl.zeros([BLOCK], tl.float64)
    for start in range(0, elements + LEAD, BLOCK):  # from the first counter; its first LEAD elements are another shard's
        at = start - LEAD
        inside = (lane < tl.minimum(elements - at, BLOCK).to(tl.int32)) & (lane >= tl.maximum(-at, 0).to(tl.int32))
        if GIVEN:
            z = tl.load(given + at + lane, mask=inside, other=0.0).to(tl.float64)
        else:
            z = normals(seed, (first_counter + start // 4).to(tl.uint32), noise_row, index, _STREAM_ROW, BLOCK).to(tl.float64)
        squares_z += tl.where(inside, z * z, 0.0)
        m = model_output(row, m_0, m_1, m_2, at_output + at, lane, inside, SOME, EVERY, False).to(tl.float64)
        squares_m += m * m
    snr = tl.load(row + _REDUCE_0).to(tl.float64)
    kappa = tl.load(row + _REDUCE_0 + 1).to(tl.float64)
    score = kappa * kappa * tl.sum(squares_m, axis=0)
    size = 2.0 * snr * snr * tl.sum(squares_z, axis=0) / score
    return tl.where(score > 0.0, size, 0.0)


@triton.jit
def reduce_kernel(
    table,
    live,
    row_count,
    row_numbers,
    noise_rows,
    seeds,
    indices,
    x,
    m_0,
    m_1,
    m_2,
    registers,
    samples,
    elements,
    output_stride,
    first_counter,
    SOME: tl.constexpr,
    EVERY: tl.constexpr,
    REDUCTIONS: tl.constexpr,
    LEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write each sample's row, with the coefficients from its reduction, to ``live``. Parameters as in ``step_kernel``."""
    sample = tl.program_id(0).to(tl.int64)
    number = tl.load(row_numbers + sample)
    if (number < 0) | (number >= tl.load(row_count)):
        return
    elements = tl.to_tensor(elements).to(tl.int64)  # triton passes the number 1 as a constant
    row = table + number.to(tl.int64) * _ROW_WORDS
    kind = tl.load(row + _REDUCE).to(tl.int32, bitcast=True)
    at = sample * elements
    at_output = sample * output_stride
    word = tl.arange(0, 64)
    values = tl.load(row + word, mask=word < _ROW_WORDS, other=0.0)
    if _DYNAMIC_THRESHOLD_BIT & REDUCTIONS:
        if kind == _DYNAMIC_THRESHOLD:
            threshold = dynamic_threshold(row, x, m_0, m_1, m_2, at, at_output, elements, SOME, EVERY, BLOCK)
            values = tl.where(word == _HI, threshold.to(tl.float32), values)
            values = tl.where(word == _LO, -threshold.to(tl.float32), values)
            values = tl.where(word == _R, (1.0 / threshold).to(tl.float32), values)
    if _GUIDANCE_RESCALE_BIT & REDUCTIONS:
        if kind == _GUIDANCE_RESCALE:
            factor = rescale_factor(row, m_0, m_1, m_2, at_output, elements, SOME, BLOCK)
            guided = (values.to(tl.float64) * factor).to(tl.float32)
            values = tl.where((word >= _G) & (word < _G + 3) & (values != 0.0), guided, values)
    if _LANGEVIN_BIT & REDUCTIONS:
        if kind == _LANGEVIN:
            seed = tl.load(seeds + sample).to(tl.uint64, bitcast=True)
            index = tl.load(indices + sample).to(tl.uint32, bitcast=True)
            noise_row = tl.load(noise_rows + sample).to(tl.uint32, bitcast=True)
            size = langevin_size(
                row,
                m_0,
                m_1,
                m_2,
                None,
                seed,
                index,
                noise_row,
                at_output,
                elements,
                first_counter,
                SOME,
                EVERY,
                False,
                LEAD,
                BLOCK,
            )
            kappa = tl.load(row + _REDUCE_0 + 1).to(tl.float64)
            values = tl.where(word == _B, (size * kappa).to(tl.float32), values)
            values = tl.where(word == _S, tl.sqrt(2.0 * size).to(tl.float32), values)
    if _LANGEVIN_GIVEN_BIT & REDUCTIONS:
        if kind == _LANGEVIN_GIVEN:
            # z is in the last register that the row reads.
            last = tl.max(tl.where((word >= _C) & (word < _C + 8) & (values != 0.0), word, 0), axis=0)
            given = registers + ((last - _C) * tl.to_tensor(samples).to(tl.int64) + sample) * elements
            size = langevin_size(
                row, m_0, m_1, m_2, given, 0, 0, 0, at_output, elements, first_counter, SOME, EVERY, True, LEAD, BLOCK
            )
            kappa = tl.load(row + _REDUCE_0 + 1).to(tl.float64)
            values = tl.where(word == _B, (size * kappa).to(tl.float32), values)
            values = tl.where(word == last, tl.sqrt(2.0 * size).to(tl.float32), values)
    tl.store(live + sample * _ROW_WORDS + word, values, mask=word < _ROW_WORDS)
