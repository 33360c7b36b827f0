"""The step of ``csrc/step/step.h`` in Triton: one program per piece of a sample, one row per sample. Loaded by :mod:`.triton`.

Bytes per element in float32: 12 for x, m -> out; 4 more per register read or written; none for noise. The arithmetic follows the
contract to the bit: the terms in order, each an explicit fused multiply-add, and a clamp that passes NaN on.

A sum starts at -0: fma(w, x, -0) is w*x, rounded once, which keeps the sign of a zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .reference import STREAM_KNOWN, STREAM_ROW
from .triton_noise import exp_clipped, normals
from .triton_variant import BIT, ROW_WORDS, WORD

# Device code may read module constants only in this form.
_ROW_WORDS = tl.constexpr(ROW_WORDS)
# Where a row has its fields.
_G = tl.constexpr(WORD["g"])
_P = tl.constexpr(WORD["p"])
_Q = tl.constexpr(WORD["q"])
_R = tl.constexpr(WORD["r"])
_LO = tl.constexpr(WORD["lo"])
_HI = tl.constexpr(WORD["hi"])
_A = tl.constexpr(WORD["a"])
_B = tl.constexpr(WORD["b"])
_D = tl.constexpr(WORD["d"])
_S = tl.constexpr(WORD["s"])
_C = tl.constexpr(WORD["c"])
_LOG_A = tl.constexpr(WORD["log_s_a"])
_LOG_B = tl.constexpr(WORD["log_s_b"])
_KNOWN_Y = tl.constexpr(WORD["known_y"])
_KNOWN_Z = tl.constexpr(WORD["known_z"])
_E_X = tl.constexpr(WORD["e_x"])
_E_M = tl.constexpr(WORD["e_m"])
_E_0 = tl.constexpr(WORD["e_0"])
_F = tl.constexpr(WORD["f"])
_WRITE = tl.constexpr(WORD["write"])
_LEARNED = tl.constexpr(WORD["learned_s"])
# The terms that rows may have.
_HAS_G0 = tl.constexpr(BIT["g0"])
_HAS_G1 = tl.constexpr(BIT["g1"])
_HAS_G2 = tl.constexpr(BIT["g2"])
_HAS_P = tl.constexpr(BIT["p"])
_HAS_Q = tl.constexpr(BIT["q"])
_HAS_A = tl.constexpr(BIT["a"])
_HAS_B = tl.constexpr(BIT["b"])
_HAS_D = tl.constexpr(BIT["d"])
_HAS_S = tl.constexpr(BIT["s"])
_HAS_LEARNED = tl.constexpr(BIT["learned_s"])
_HAS_KNOWN_Y = tl.constexpr(BIT["known_y"])
_HAS_KNOWN_Z = tl.constexpr(BIT["known_z"])
_HAS_WRITE = tl.constexpr(BIT["write"])
_HAS_E_X = tl.constexpr(BIT["e_x"])
_HAS_E_M = tl.constexpr(BIT["e_m"])
_HAS_E_0 = tl.constexpr(BIT["e_0"])
_HAS_X = tl.constexpr(BIT["x"])
_HAS_M = tl.constexpr(BIT["m"])
_HAS_NOISE = tl.constexpr(BIT["noise"])
_HAS_PREDICTION = tl.constexpr(BIT["prediction"])
_HAS_NEXT = tl.constexpr(BIT["next"])
_HAS_KNOWN = tl.constexpr(BIT["known"])
_HAS_KEPT = tl.constexpr(BIT["kept"])
_HAS_CLAMP = tl.constexpr(BIT["clamp"])
_HAS_R = tl.constexpr(BIT["r"])
_STREAM_ROW, _STREAM_KNOWN = tl.constexpr(STREAM_ROW), tl.constexpr(STREAM_KNOWN)


@triton.jit
def here():
    """The piece and the sample of this program. Samples use two axes of the grid, because one axis is limited to 65,535."""
    return tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)


@triton.jit
def weight(row, word: tl.constexpr, TERM: tl.constexpr, SOME: tl.constexpr):
    """A coefficient of the row, or 0 if no row has the term."""
    if TERM & SOME:
        return tl.load(row + word)
    else:
        return tl.full([], 0.0, tl.float32)


@triton.jit
def add(total, w, value, TERM: tl.constexpr, SOME: tl.constexpr, EVERY: tl.constexpr):
    """Add a term to a sum."""
    if TERM & EVERY:
        return tl.fma(w, value, total)
    elif TERM & SOME:
        return tl.where(w != 0.0, tl.fma(w, value, total), total)
    else:
        return total


@triton.jit
def finish(total, present, TERM: tl.constexpr, EVERY: tl.constexpr):
    """The sum, or +0 if it has no term."""
    if TERM & EVERY:
        return total
    else:
        return tl.where(present, total, 0.0)


@triton.jit
def read(base, lane, inside, present, TERM: tl.constexpr, EVERY: tl.constexpr, WHOLE: tl.constexpr):
    """The elements as float32. Elements outside the sample, and of absent tensors, are 0 and not read."""
    if TERM & EVERY:
        if WHOLE:
            return tl.load(base + lane).to(tl.float32)
        else:
            return tl.load(base + lane, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.load(base + lane, mask=inside & present, other=0.0).to(tl.float32)


@triton.jit
def model_output(row, m_0, m_1, m_2, at, lane, inside, SOME: tl.constexpr, EVERY: tl.constexpr, WHOLE: tl.constexpr):
    """m, the weighted sum of the network outputs; +0 if the row has none."""
    g_0 = weight(row, _G, _HAS_G0, SOME)
    g_1 = weight(row, _G + 1, _HAS_G1, SOME)
    g_2 = weight(row, _G + 2, _HAS_G2, SOME)
    m = tl.full(lane.shape, -0.0, tl.float32)
    if _HAS_G0 & SOME:
        m = add(m, g_0, read(m_0 + at, lane, inside, g_0 != 0.0, _HAS_G0, EVERY, WHOLE), _HAS_G0, SOME, EVERY)
    if _HAS_G1 & SOME:
        m = add(m, g_1, read(m_1 + at, lane, inside, g_1 != 0.0, _HAS_G1, EVERY, WHOLE), _HAS_G1, SOME, EVERY)
    if _HAS_G2 & SOME:
        m = add(m, g_2, read(m_2 + at, lane, inside, g_2 != 0.0, _HAS_G2, EVERY, WHOLE), _HAS_G2, SOME, EVERY)
    return finish(m, (g_0 != 0.0) | (g_1 != 0.0) | (g_2 != 0.0), _HAS_M, EVERY)


@triton.jit
def raw_prediction(row, x, m, SOME: tl.constexpr, EVERY: tl.constexpr):
    """p*x + q*m, before the clamp."""
    p = weight(row, _P, _HAS_P, SOME)
    q = weight(row, _Q, _HAS_Q, SOME)
    total = tl.full(x.shape, -0.0, tl.float32)
    total = add(total, p, x, _HAS_P, SOME, EVERY)
    total = add(total, q, m, _HAS_Q, SOME, EVERY)
    return finish(total, (p != 0.0) | (q != 0.0), _HAS_PREDICTION, EVERY)


@triton.jit
def noise(
    present, seed, first, noise_row, index, stream: tl.constexpr, BLOCK: tl.constexpr, TERM: tl.constexpr, EVERY: tl.constexpr
):
    """The normals of this piece; zeros if the row draws none."""
    if TERM & EVERY:
        return normals(seed, first, noise_row, index, stream, BLOCK)
    else:
        z = tl.zeros([BLOCK], tl.float32)
        if present:
            z = normals(seed, first, noise_row, index, stream, BLOCK)
        return z


@triton.jit
def step_kernel(
    table,
    live,
    row_count,
    row_numbers,
    noise_rows,
    bad,
    seeds,
    indices,  # per run and per sample
    x,
    out,
    m_0,
    m_1,
    m_2,
    registers,
    y,
    mask,  # per element
    samples,
    elements,
    output_stride,
    variance_offset,
    first_counter,
    SOME: tl.constexpr,
    EVERY: tl.constexpr,
    HISTORY_SOME: tl.constexpr,
    HISTORY_EVERY: tl.constexpr,
    KEEP_SOME: tl.constexpr,
    KEEP_EVERY: tl.constexpr,
    REDUCED: tl.constexpr,
    MASKED: tl.constexpr,
    PRIVATE: tl.constexpr,
    LEAD: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Apply to each sample its row.

    Args:
        table, live: Rows of 32-bit words; ``live`` has a row per sample, written by the reduction kernel (REDUCED).
        row_count: The number of rows, in memory, because a table of another length may be loaded.
        row_numbers, noise_rows, bad: int32 per sample; a sample is inactive if its number is not a row's.
        seeds, indices: int64 and int32 per sample, as bits.
        first_counter: Philox counter of the first element of piece 0.
        REDUCED, MASKED: Whether there is a reduction, a mask. PRIVATE: whether every thread writes only elements it has read.
        LEAD: Elements of the first counter that belong to another shard. WHOLE: every piece is inside the sample.
    """
    piece, sample = here()
    samples = tl.to_tensor(samples).to(tl.int64)  # triton passes the number 1 as a constant
    if sample >= samples:
        return
    number = tl.load(row_numbers + sample)
    if (number < 0) | (number >= tl.load(row_count)):
        return
    if REDUCED:
        row = live + sample * _ROW_WORDS
    else:
        row = table + number.to(tl.int64) * _ROW_WORDS
    # The base has 64 bits; offsets within a piece need 32.
    base = piece * BLOCK - LEAD
    lane = tl.arange(0, BLOCK)
    inside = lane < tl.minimum(elements - base, BLOCK).to(tl.int32)
    if LEAD > 0:
        inside = inside & (lane >= tl.maximum(-base, 0).to(tl.int32))
    at = sample * elements + base
    at_output = sample * output_stride + base

    a = weight(row, _A, _HAS_A, SOME)
    b = weight(row, _B, _HAS_B, SOME)
    d = weight(row, _D, _HAS_D, SOME)
    s = weight(row, _S, _HAS_S, SOME)
    e_x = weight(row, _E_X, _HAS_E_X, SOME)
    e_m = weight(row, _E_M, _HAS_E_M, SOME)
    e_0 = weight(row, _E_0, _HAS_E_0, SOME)

    # ---- what the row reads
    old = tl.zeros([BLOCK], tl.float32)
    if _HAS_X & SOME:
        p = weight(row, _P, _HAS_P, SOME)
        old = read(x + at, lane, inside, (a != 0.0) | (p != 0.0) | (e_x != 0.0), _HAS_X, EVERY, WHOLE)
    m = tl.zeros([BLOCK], tl.float32)
    if _HAS_M & SOME:
        m = model_output(row, m_0, m_1, m_2, at_output, lane, inside, SOME, EVERY, WHOLE)
        # Negated, so that NaN is detected too. Every program that detects one stores the same number.
        if tl.max((~(tl.abs(m) < float("inf"))).to(tl.int32), axis=0) != 0:
            if tl.load(bad + sample) < 0:
                tl.store(bad + sample, number)
    x_0 = tl.zeros([BLOCK], tl.float32)
    if (_HAS_D | _HAS_E_0) & SOME:
        x_0 = raw_prediction(row, old, m, SOME, EVERY)
        if _HAS_CLAMP & SOME:
            lo = tl.load(row + _LO)
            hi = tl.load(row + _HI)
            x_0 = tl.where(x_0 < lo, lo, x_0)
            x_0 = tl.where(x_0 > hi, hi, x_0)
        if _HAS_R & SOME:
            x_0 = x_0 * tl.load(row + _R)

    # ---- the new state and the register's new value: each register is read once for both
    new = tl.full([BLOCK], -0.0, tl.float32)
    new = add(new, a, old, _HAS_A, SOME, EVERY)
    new = add(new, b, m, _HAS_B, SOME, EVERY)
    new = add(new, d, x_0, _HAS_D, SOME, EVERY)
    kept = tl.full([BLOCK], -0.0, tl.float32)
    kept = add(kept, e_x, old, _HAS_E_X, SOME, EVERY)
    kept = add(kept, e_m, m, _HAS_E_M, SOME, EVERY)
    kept = add(kept, e_0, x_0, _HAS_E_0, SOME, EVERY)
    new_present = (a != 0.0) | (b != 0.0) | (d != 0.0)
    kept_present = (e_x != 0.0) | (e_m != 0.0) | (e_0 != 0.0)
    for k in tl.static_range(8):
        if (HISTORY_SOME | KEEP_SOME) & (1 << k):
            c_k = weight(row, _C + k, 1 << k, HISTORY_SOME)
            f_k = weight(row, _F + k, 1 << k, KEEP_SOME)
            h = read(
                registers + (k * samples + sample) * elements + base,
                lane,
                inside,
                (c_k != 0.0) | (f_k != 0.0),
                1 << k,
                HISTORY_EVERY | KEEP_EVERY,
                WHOLE,
            )
            new = add(new, c_k, h, 1 << k, HISTORY_SOME, HISTORY_EVERY)
            kept = add(kept, f_k, h, 1 << k, KEEP_SOME, KEEP_EVERY)
            new_present = new_present | (c_k != 0.0)
            kept_present = kept_present | (f_k != 0.0)

    # ---- noise
    if (_HAS_NOISE | _HAS_KNOWN_Z) & SOME:
        seed = tl.load(seeds + sample).to(tl.uint64, bitcast=True)
        index = tl.load(indices + sample).to(tl.uint32, bitcast=True)
        noise_row = tl.load(noise_rows + sample).to(tl.uint32, bitcast=True)
        first = (first_counter + piece * (BLOCK // 4)).to(tl.uint32)
    if _HAS_NOISE & SOME:
        present = s != 0.0
        if _HAS_LEARNED & SOME:
            learned = tl.load(row + _LEARNED).to(tl.int32, bitcast=True) != 0
            present = present | learned
        z = noise(present, seed, first, noise_row, index, _STREAM_ROW, BLOCK, _HAS_NOISE, EVERY)
        new = add(new, s, z, _HAS_S, SOME, EVERY)
        if _HAS_LEARNED & SOME:
            v = read(m_0 + at_output + variance_offset, lane, inside, learned, _HAS_LEARNED, EVERY, WHOLE)
            log_s = tl.fma(tl.load(row + _LOG_B), v, tl.load(row + _LOG_A))
            new = tl.where(learned, tl.fma(exp_clipped(log_s), z, new), new)
        new_present = new_present | present
    new = finish(new, new_present, _HAS_NEXT, EVERY)

    # ---- the known region
    if MASKED:
        known_y = weight(row, _KNOWN_Y, _HAS_KNOWN_Y, SOME)
        known_z = weight(row, _KNOWN_Z, _HAS_KNOWN_Z, SOME)
        known = tl.full([BLOCK], -0.0, tl.float32)
        if _HAS_KNOWN_Y & SOME:
            values = read(y + at, lane, inside, known_y != 0.0, _HAS_KNOWN_Y, EVERY, WHOLE)
            known = add(known, known_y, values, _HAS_KNOWN_Y, SOME, EVERY)
        if _HAS_KNOWN_Z & SOME:
            z_known = noise(known_z != 0.0, seed, first, noise_row, index, _STREAM_KNOWN, BLOCK, _HAS_KNOWN_Z, EVERY)
            known = add(known, known_z, z_known, _HAS_KNOWN_Z, SOME, EVERY)
        known = finish(known, (known_y != 0.0) | (known_z != 0.0), _HAS_KNOWN, EVERY)
        where = tl.load(mask + at + lane, mask=inside, other=0.0)
        new = tl.fma(where, known - new, new)

    # ---- what the row writes, perhaps in place
    if not PRIVATE:
        tl.debug_barrier()
    if _HAS_WRITE & SOME:
        write = tl.load(row + _WRITE).to(tl.int32, bitcast=True)
        kept = finish(kept, kept_present, _HAS_KEPT, EVERY)
        target = registers + (write.to(tl.int64) * samples + sample) * elements + base
        if _HAS_WRITE & EVERY:
            tl.store(target + lane, kept, mask=None if WHOLE else inside)
        else:
            tl.store(target + lane, kept, mask=inside & (write >= 0))
    tl.store(out + at + lane, new.to(out.dtype.element_ty), mask=None if WHOLE else inside)


@triton.jit
def advance_kernel(row_count, row_numbers, noise_rows, times, t, samples, TIMED: tl.constexpr, BLOCK: tl.constexpr):
    """Advance each active sample to its next row, and set t to that row's time, or keep the last row's."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < samples
    number = tl.load(row_numbers + sample, mask=inside, other=-1)
    count = tl.load(row_count)
    active = inside & (number >= 0) & (number < count)
    tl.store(row_numbers + sample, number + 1, mask=active)
    tl.store(noise_rows + sample, tl.load(noise_rows + sample, mask=active, other=0) + 1, mask=active)
    if TIMED:
        time = tl.load(times + tl.minimum(number + 1, count - 1), mask=active, other=0.0)
        tl.store(t + sample, time.to(t.dtype.element_ty), mask=active)


@triton.jit
def normals_kernel(
    out, seeds, indices, samples, elements, first_counter, row, scale, STREAM: tl.constexpr, LEAD: tl.constexpr, BLOCK: tl.constexpr
):
    """out = scale * z."""
    piece, sample = here()
    if sample >= samples:
        return
    base = piece * BLOCK - LEAD
    lane = tl.arange(0, BLOCK)
    inside = (lane < tl.minimum(elements - base, BLOCK).to(tl.int32)) & (lane >= tl.maximum(-base, 0).to(tl.int32))
    seed = tl.load(seeds + sample).to(tl.uint64, bitcast=True)
    index = tl.load(indices + sample).to(tl.uint32, bitcast=True)
    first = (first_counter + piece * (BLOCK // 4)).to(tl.uint32)
    z = normals(seed, first, row, index, STREAM, BLOCK)
    tl.store(out + sample * elements + base + lane, z * scale, mask=inside)
