// The step: the contract between a plan and the kernels that apply it.
//
// A kernel applies one row to one sample in one pass over memory, element by element:
//
//   m   = sum_j g[j] * m_j                                 guidance over up to three network outputs
//   x0  = r * clamp(p*x + q*m, lo, hi)                     network output -> data prediction
//   x'  = a*x + b*m + d*x0 + sum_k c[k]*h_k + s*z          the new state, z ~ N(0, 1) of stream 1
//   x'  = x' + M * (known_y*y + known_z*z_y - x')          the known region, z_y ~ N(0, 1) of stream 2
//   h_w = e_x*x + e_m*m + e_0*x0 + sum_k f[k]*h_k          what register w keeps for later rows
//
// s is exp(log_s_a + log_s_b * v) where the network also predicts a variance v.
//
// Every implementation follows this arithmetic to the bit:
//  - All arithmetic is float32, whatever the dtypes of the tensors. Results are rounded to nearest even once, when stored.
//  - A sum runs over its terms in the order written. The first term present is a product; each later term is one fused
//    multiply-add onto the sum so far. A term whose coefficient is exactly 0 is neither read nor added. A sum without
//    terms is +0. One exception: a sum for m with the single coefficient 1 is m_j itself.
//  - clamp passes NaN on. A value equal to a bound is returned unchanged (so -0 stays -0 at a bound of +0).
//  - A NaN stays a NaN; its sign and payload depend on the machine.
//  - x and h_k are the values before the row: x' may overwrite x, and h_w may overwrite h_k.
//  - h_w is computed from x, m, x0 and the old registers. It does not see x', the noise or the mask.
//
// The noise is counter-based; it is defined in random/philox.h and random/normal.h.

#pragma once

#include <cstdint>

#include "simd/dtype.h"
#include "simd/host_device.h"

namespace df {

inline constexpr int kMaxOutputs = 3;
inline constexpr int kMaxRegisters = 8;

// Streams of the generator (the fourth counter word).
enum Stream : uint32_t { kStreamInitial = 0, kStreamRow = 1, kStreamKnown = 2, kStreamTraining = 3 };

// The reduction of a row: what is computed from a sample before the row is applied, and the coefficients that it sets.
enum class Reduce : int32_t {
  kNone = 0,
  // t = clip(quantile(|p*x + q*m|, ratio), 1, max); lo = -t, hi = t, r = 1/t.   (Imagen, section 2.3)
  //   reduce_0 = ratio, reduce_1 = max
  kDynamicThreshold = 1,
  // g[j] *= phi * std(m_0) / std(m) + 1 - phi.   (Lin et al. 2023, section 3.4)
  //   reduce_0 = phi, from 0 to 1. Output 0 is read even if its weight is 0. A constant m keeps its weights.
  kGuidanceRescale = 2,
  // step = 2 * (snr * |z| / |kappa*m|)^2; b = step * kappa, s = sqrt(2 * step).   (Song et al. 2021, Algorithm 4)
  //   reduce_0 = snr, reduce_1 = kappa, which turns m into the score
  kLangevin = 3,
  // The same with z given in register k, the last one that the row reads; b = step * kappa, c[k] = sqrt(2 * step).
  kLangevinGiven = 4,
};

// One row of a plan, in float32. The layout is shared with CUDA and with Python, which gets it as a NumPy dtype from
// bindings/step.cpp: add a member there too. 4-byte members only.
struct Row {
  float g[kMaxOutputs];
  float p, q, r, lo, hi;
  float a, b, d, s;
  float c[kMaxRegisters];
  float log_s_a, log_s_b;
  float known_y, known_z;
  float e_x, e_m, e_0;
  float f[kMaxRegisters];
  float reduce_0, reduce_1;
  int32_t reduce;         // Reduce
  int32_t write;          // the register h_w, or -1
  int32_t learned_s;      // 1: s is exp(log_s_a + log_s_b * v)
  int32_t calls_network;  // 0: the row has no m; g, q, b and e_m must be 0
};

// The tensors of one sample. Pointers that no row of the call needs may be null. Each tensor is contiguous within the
// sample. x and out may be the same memory; any other overlap is undefined behaviour.
struct PreparedRow;
struct Sample {
  const PreparedRow* row;
  const void* x;               // state, dtype Call::state
  void* out;                   // new state, dtype Call::state
  const void* m[kMaxOutputs];  // network outputs, dtype Call::output
  const void* v;               // the variance channel of m[0], dtype Call::output
  float* h[kMaxRegisters];     // registers are float32: multistep methods take differences of them
  const float* y;              // known region
  const float* mask;           // M, in [0, 1]
  uint64_t seed;               // key of the generator
  uint32_t index;              // sample index, third counter word
  uint32_t noise_row;          // row of the plan, second counter word
};

// One call of the kernel: every sample has its own row, and all have the same number of elements.
struct Call {
  const Sample* samples;
  int64_t count;
  int64_t elements;         // per sample
  uint64_t element_offset;  // logical index of the first element: shards of one sample draw the sample's own noise
  DType state;
  DType output;
  uint8_t* bad;  // per sample: set to 1 where m holds NaN or Inf, else not written; may be null
};

// The terms that a row has: computed once per row, read by the kernels.
enum Term : uint32_t {
  kG0 = 1u << 0,  // kG0 << j: output j has a weight
  kG1 = kG0 << 1,
  kG2 = kG0 << 2,
  kPlainM = 1u << 3,  // m is m_j: one output with weight 1
  kX0 = 1u << 4,      // x0 is needed
  kP = 1u << 5,
  kQ = 1u << 6,
  kR = 1u << 7,  // r is not 1
  kClamp = 1u << 8,
  kA = 1u << 9,
  kB = 1u << 10,
  kD = 1u << 11,
  kHistory = 1u << 12,  // some c[k] is not 0
  kS = 1u << 13,        // noise with a fixed s
  kLearnedS = 1u << 14,
  kKnownY = 1u << 15,
  kKnownZ = 1u << 16,
  kWrite = 1u << 17,
  kEx = 1u << 18,
  kEm = 1u << 19,
  kE0 = 1u << 20,
  kKeep = 1u << 21,  // some f[k] is not 0
  kMask = 1u << 22,  // a property of the sample: the kernel sets it where there is a mask
};

// A row with its terms and the lists of registers that it reads.
struct PreparedRow {
  Row row;
  uint32_t terms;
  int32_t history_count, keep_count;
  int32_t history[kMaxRegisters];  // the k with c[k] != 0, ascending
  int32_t keep[kMaxRegisters];     // the k with f[k] != 0, ascending
};

// The terms of a row. `history` and `keep`: whether any c[k] and any f[k] is not 0.
DF_HOST_DEVICE uint32_t terms_of(const Row& row, bool history, bool keep) {
  constexpr float inf = __builtin_huge_valf();
  uint32_t t = 0;
  int outputs = 0;
  bool unit = false;
  for (int j = 0; j < kMaxOutputs && row.calls_network; ++j) {
    if (row.g[j] == 0.0f) continue;
    t |= kG0 << j;
    ++outputs;
    unit = row.g[j] == 1.0f;
  }
  if (outputs == 1 && unit) t |= kPlainM;
  if (history) t |= kHistory;
  if (row.write >= 0) {
    t |= kWrite;
    if (row.e_x != 0.0f) t |= kEx;
    if (row.e_m != 0.0f) t |= kEm;
    if (row.e_0 != 0.0f) t |= kE0 | kX0;
    if (keep) t |= kKeep;
  }
  if (row.a != 0.0f) t |= kA;
  if (row.b != 0.0f) t |= kB;
  if (row.d != 0.0f) t |= kD | kX0;
  if (t & kX0) {
    if (row.p != 0.0f) t |= kP;
    if (row.q != 0.0f) t |= kQ;
    if (row.r != 1.0f) t |= kR;
    if (row.lo > -inf || row.hi < inf) t |= kClamp;
  }
  if (row.learned_s) {
    t |= kLearnedS;
  } else if (row.s != 0.0f) {
    t |= kS;
  }
  if (row.known_y != 0.0f) t |= kKnownY;
  if (row.known_z != 0.0f) t |= kKnownZ;
  return t;
}

// Always inlined, like everything that the kernels of several instruction sets share: the linker would keep one out-of-line
// copy for all of them, perhaps with instructions that this machine does not have.
DF_HOST_DEVICE PreparedRow prepare_row(const Row& row) {
  PreparedRow out{};
  out.row = row;
  for (int k = 0; k < kMaxRegisters; ++k)
    if (row.c[k] != 0.0f) out.history[out.history_count++] = k;
  for (int k = 0; k < kMaxRegisters && row.write >= 0; ++k)
    if (row.f[k] != 0.0f) out.keep[out.keep_count++] = k;
  out.terms = terms_of(row, out.history_count > 0, out.keep_count > 0);
  return out;
}

// Whether the row reads network output j: it has a weight, or a reduction reads it.
DF_HOST_DEVICE bool reads_output(const PreparedRow& r, int j) {
  return (r.terms & (kG0 << j)) != 0 || (j == 0 && r.row.reduce == static_cast<int32_t>(Reduce::kGuidanceRescale));
}

// The terms of a row after its reduction, from the terms before it and the terms of the new coefficients. A reduction never
// adds a term that reads memory: a coefficient that came out as NaN must not make the row read a tensor it does not have.
DF_HOST_DEVICE uint32_t terms_after_reduction(uint32_t before, uint32_t after) {
  return after & (before | kPlainM | kR | kClamp | kB | kS);
}

}  // namespace df
