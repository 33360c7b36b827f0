// The CPU step, compiled once per instruction set (simd/simd.h).
//
//   x' = a x + b m + d x0 + sum c h + s z, and the rest of step.h, in one pass.
//   Bytes per element in float32: 12 for x, m -> out; 8 more per register read and written; none for noise.
//
// Everything but the kernel's entry in the table has internal linkage.

#include <algorithm>
#include <cstring>

#include "random/noise.h"
#include "simd/simd.h"
#include "step/apply.h"
#include "step/cpu/kernels.h"
#include "step/cpu/reductions.h"
#include "step/cpu/terms.h"

namespace df {
namespace {

// Loads and stores of apply_row for the vector at element i: a whole vector, or its elements [first, last).
template <DType kState, DType kOutput, bool kWhole>
struct Io {
  const Sample& s;
  int64_t i;
  int first, last;
  const F* row_noise;
  const F* known_noise;
  F* not_finite;

  template <DType kType>
  DF_INLINE F get(const void* base) const {
    return kWhole ? load_as<kType>(base, i) : load_part<kType>(base, i, first, last);
  }
  template <DType kType>
  DF_INLINE void put(void* base, F value) const {
    if (kWhole) {
      store_as<kType>(base, i, value);
    } else {
      store_part<kType>(base, i, first, last, value);
    }
  }
  DF_INLINE F x() const { return get<kState>(s.x); }
  DF_INLINE F m(int j) const { return get<kOutput>(s.m[j]); }
  DF_INLINE F v() const { return get<kOutput>(s.v); }
  DF_INLINE F h(int k) const { return get<DType::kFloat32>(s.h[k]); }
  DF_INLINE F y() const { return get<DType::kFloat32>(s.y); }
  DF_INLINE F mask() const { return get<DType::kFloat32>(s.mask); }
  DF_INLINE F z() const { return *row_noise; }
  DF_INLINE F z_known() const { return *known_noise; }
  DF_INLINE void store(F value) const { put<kState>(s.out, value); }
  DF_INLINE void store_h(int k, F value) const { put<DType::kFloat32>(s.h[k], value); }
  // 0 * m is NaN if m is NaN or Inf, and a zero otherwise: one fma detects both.
  DF_INLINE void check(F m) const { *not_finite = Vector::fma(m, Vector::set(0.0f), *not_finite); }
};

// ---- the loop -------------------------------------------------------------------------------------------

template <class Terms, DType kState, DType kOutput>
__attribute__((noinline)) void loop(const Call& call, const Sample& s, const Terms& terms, int64_t begin, int64_t end,
                                    int64_t which) {
  const PreparedRow row = *s.row;  // a copy the compiler knows no store can change
  F not_finite = Vector::set(0.0f);
  const Noise noise(s.seed, s.noise_row, s.index);
  const auto group = [&]<bool kWhole>(int64_t at) __attribute__((always_inline)) {
    F z[kVectors], z_known[kVectors];
    const uint64_t element = call.element_offset + static_cast<uint64_t>(at);
    if (terms.has(kS | kLearnedS)) normals_of_group(z, noise, element, kStreamRow);
    if (terms.has(kMask) && terms.has(kKnownZ)) normals_of_group(z_known, noise, element, kStreamKnown);
    for (int j = 0; j < kVectors; ++j) {
      const int64_t i = at + j * kWidth;
      int first = 0, last = kWidth;
      if constexpr (!kWhole) {
        first = static_cast<int>(std::clamp<int64_t>(begin - i, 0, kWidth));
        last = static_cast<int>(std::clamp<int64_t>(end - i, 0, kWidth));
        if (first >= last) continue;
      }
      Io<kState, kOutput, kWhole> io{s, i, first, last, z + j, z_known + j, &not_finite};
      apply_row<Vector>(row, terms, io);
    }
  };
  // Groups start where a counter of the generator starts: where the logical index is a multiple of four.
  // The first and the last may be parts of groups; both are computed by one copy of the code.
  int64_t at = begin - static_cast<int64_t>((call.element_offset + static_cast<uint64_t>(begin)) % 4);
  for (;;) {
    if (at >= begin)
      for (; at + kGroup <= end; at += kGroup) group.template operator()<true>(at);
    if (at >= end) break;
    group.template operator()<false>(at);
    at += kGroup;
  }
  if (call.bad != nullptr && Vector::any_nan(not_finite)) __atomic_store_n(call.bad + which, 1, __ATOMIC_RELAXED);
}

template <DType kState, DType kOutput>
void general(const Call& call, const Sample& s, uint32_t terms, int64_t begin, int64_t end, int64_t which) {
  loop<Any, kState, kOutput>(call, s, Any{terms}, begin, end, which);
}

template <DType kState>
void general(const Call& call, const Sample& s, uint32_t terms, int64_t begin, int64_t end, int64_t which) {
  switch (call.output) {
    case DType::kFloat32: return general<kState, DType::kFloat32>(call, s, terms, begin, end, which);
    case DType::kFloat16: return general<kState, DType::kFloat16>(call, s, terms, begin, end, which);
    case DType::kBFloat16: return general<kState, DType::kBFloat16>(call, s, terms, begin, end, which);
  }
}

void general(const Call& call, const Sample& s, uint32_t terms, int64_t begin, int64_t end, int64_t which) {
  switch (call.state) {
    case DType::kFloat32: return general<DType::kFloat32>(call, s, terms, begin, end, which);
    case DType::kFloat16: return general<DType::kFloat16>(call, s, terms, begin, end, which);
    case DType::kBFloat16: return general<DType::kBFloat16>(call, s, terms, begin, end, which);
  }
}

using Loop = void (*)(const Call&, const Sample&, int64_t, int64_t, int64_t);

template <uint32_t kTerms, int kHistoryCount = 0>
void hot(const Call& call, const Sample& s, int64_t begin, int64_t end, int64_t which) {
  loop<Fixed<kTerms, kHistoryCount>, DType::kFloat32, DType::kFloat32>(call, s, {}, begin, end, which);
}

struct HotLoop {
  uint32_t terms;
  int32_t history_count;
  Loop loop;
};

constexpr uint32_t kM = kG0 | kPlainM;
constexpr uint32_t kClipped = kX0 | kP | kQ | kClamp;

// The loops for nearly every step of the common solvers, float32 in and out.
constexpr HotLoop kHot[] = {
    // one-step solvers, unclipped: x' = a x + b m (+ s z)
    {kM | kA | kB, 0, hot<kM | kA | kB>},
    {kM | kA | kB | kS, 0, hot<kM | kA | kB | kS>},
    // clipped: raw epsilon (DDIM), rederived epsilon or posterior mean (DDPM), the last row
    {kM | kClipped | kB | kD, 0, hot<kM | kClipped | kB | kD>},
    {kM | kClipped | kB | kD | kS, 0, hot<kM | kClipped | kB | kD | kS>},
    {kM | kClipped | kA | kD, 0, hot<kM | kClipped | kA | kD>},
    {kM | kClipped | kA | kD | kS, 0, hot<kM | kClipped | kA | kD | kS>},
    {kM | kClipped | kD, 0, hot<kM | kClipped | kD>},
    // singlestep solvers: one stage keeps the base state or the slope, the next reads it
    {kM | kA | kB | kWrite | kEx, 0, hot<kM | kA | kB | kWrite | kEx>},
    {kM | kA | kB | kWrite | kEx | kEm, 0, hot<kM | kA | kB | kWrite | kEx | kEm>},
    {kM | kA | kB | kHistory, 1, hot<kM | kA | kB | kHistory, 1>},
    {kM | kB | kHistory, 1, hot<kM | kB | kHistory, 1>},
    {kM | kClipped | kA | kD | kHistory, 1, hot<kM | kClipped | kA | kD | kHistory, 1>},
    // multistep solvers: read one or two registers, keep the prediction
    {kM | kA | kB | kHistory | kWrite | kEx | kEm, 1, hot<kM | kA | kB | kHistory | kWrite | kEx | kEm, 1>},
    {kM | kA | kB | kHistory | kWrite | kEx | kEm, 2, hot<kM | kA | kB | kHistory | kWrite | kEx | kEm, 2>},
    {kM | kA | kB | kHistory | kWrite | kEm, 1, hot<kM | kA | kB | kHistory | kWrite | kEm, 1>},
    {kM | kA | kB | kHistory | kWrite | kEm, 2, hot<kM | kA | kB | kHistory | kWrite | kEm, 2>},
    {kM | kClipped | kA | kD | kHistory | kWrite | kE0, 1, hot<kM | kClipped | kA | kD | kHistory | kWrite | kE0, 1>},
    {kM | kClipped | kA | kD | kHistory | kWrite | kE0, 2, hot<kM | kClipped | kA | kD | kHistory | kWrite | kE0, 2>},
};

void step(const Call& call, int64_t i, int64_t begin, int64_t end) {
  const Sample& s = call.samples[i];
  const uint32_t terms = s.row->terms | (s.mask != nullptr ? kMask : 0u);
  // The coefficients of the known region count only with a mask.
  const uint32_t present = s.mask != nullptr ? terms : terms & ~(kKnownY | kKnownZ);
  if (call.state == DType::kFloat32 && call.output == DType::kFloat32)
    for (const HotLoop& h : kHot)
      if (h.terms == present && h.history_count == s.row->history_count) return h.loop(call, s, begin, end, i);
  general(call, s, present, begin, end, i);
}

// ---- normals and Philox words ----------------------------------------------------------------------------

void normals(const Normals& what) {
  const F scale = Vector::set(what.scale);
  const Noise noise(what.seed, what.row, what.index);
  for (int64_t at = -static_cast<int64_t>(what.element_offset % 4); at < what.elements; at += kGroup) {
    F z[kVectors];
    normals_of_group(z, noise, what.element_offset + static_cast<uint64_t>(at), what.stream);
    for (int j = 0; j < kVectors; ++j) {
      const int64_t i = at + j * kWidth;
      const auto first = static_cast<int>(std::clamp<int64_t>(-i, 0, kWidth));
      const auto last = static_cast<int>(std::clamp<int64_t>(what.elements - i, 0, kWidth));
      const F value = Vector::mul_f(scale, z[j]);
      if (first == 0 && last == kWidth) {
        Vector::store(what.out + i, value);
      } else if (first < last) {
        store_part<DType::kFloat32>(what.out, i, first, last, value);
      }
    }
  }
}

void philox(uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream, int64_t counters, uint32_t* out) {
  for (int64_t at = 0; at < counters; at += Vector::counters) {
    using W = typename Vector::W;
    const W start = Vector::counter(first + static_cast<uint64_t>(at));
    W c[4] = {start, Vector::wide(row), Vector::wide(index), Vector::wide(stream)};
    philox4x32_10<Vector>(c, PhiloxKeys(seed));
    uint64_t lanes[4][Vector::counters], order[Vector::counters];
    std::memcpy(lanes, c, sizeof lanes);
    std::memcpy(order, &start, sizeof order);
    for (int lane = 0; lane < Vector::counters; ++lane) {
      const auto counter = static_cast<int64_t>(order[lane] - first);
      for (int j = 0; j < 4 && counter < counters; ++j) out[4 * counter + j] = static_cast<uint32_t>(lanes[j][lane]);
    }
  }
}

const char* unavailable() {
#if defined(DF_ISA_AVX512) && !defined(DF_EMULATED)
  __builtin_cpu_init();
  const bool can = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
  return can ? nullptr : "this processor has no AVX-512 (F, BW, DQ, VL)";
#elif defined(DF_ISA_AVX2) || defined(DF_EMULATED)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? nullptr : "this processor has no AVX2 with FMA";
#else
  return nullptr;
#endif
}

}  // namespace

void DF_PASTE(forward_, DF_ISA)(const Forward&, int64_t, int64_t, int64_t);  // forward.cpp

extern const Kernel DF_PASTE(kernel_, DF_ISA);
const Kernel DF_PASTE(kernel_, DF_ISA) = {DF_STRING(DF_ISA),          step,       reduce, normals, philox,
                                          DF_PASTE(forward_, DF_ISA), unavailable};

}  // namespace df
