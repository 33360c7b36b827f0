// The CPU step: one source, compiled once per instruction set (CMake defines DF_ISA and the compiler flags).
//
//   x' = a x + b m + d x0 + sum c h + s z, and the rest of step.h, in one pass.
//   Bytes per element in float32: 12 for x, m -> out; 8 more per register read and written; noise costs none.
//
// Everything here has internal linkage: code compiled for one instruction set must never be linked into another.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "step/apply.h"
#include "step/isa.h"
#include "step/kernels.h"
#include "step/reduce.h"

namespace df {
namespace {

// What apply_row reads and writes for the vector at element i. Whole vectors, or the part [first, last) of one.
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
  // 0 * m is NaN for NaN and Inf and a zero for everything else: one fma finds both.
  DF_INLINE void check(F m) const { *not_finite = Vector::fma(m, Vector::set(0.0f), *not_finite); }
};

// ---- the loop -------------------------------------------------------------------------------------------

// Terms known when the loop is compiled: its branches vanish.
template <uint32_t kTerms, int kHistoryCount>
struct Fixed {
  static DF_INLINE constexpr bool has(uint32_t any) { return (kTerms & any) != 0; }
  static DF_INLINE int history_count(const ReadyRow&) { return kHistoryCount; }
};

// Terms known when the loop runs: one well-predicted branch per term and vector.
struct Any {
  uint32_t terms;
  DF_INLINE bool has(uint32_t any) const { return (terms & any) != 0; }
  static DF_INLINE int history_count(const ReadyRow& row) { return row.history_count; }
};

template <class Terms, DType kState, DType kOutput>
__attribute__((noinline)) void loop(const Call& call, const Sample& s, const Terms& terms, int64_t begin, int64_t end,
                                    int64_t which) {
  const ReadyRow row = *s.row;  // a copy the compiler knows no store can change
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
  // Groups start where the logical index is a multiple of four, where a counter starts.
  int64_t at = begin - static_cast<int64_t>((call.element_offset + static_cast<uint64_t>(begin)) % 4);
  if (at < begin) {
    group.template operator()<false>(at);
    at += kGroup;
  }
  for (; at + kGroup <= end; at += kGroup) group.template operator()<true>(at);
  if (at < end) group.template operator()<false>(at);
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

// The variants that carry nearly every step of every common solver, float32 in and out.
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
    // singlestep solvers: the base state, or the slope, kept by one stage and read by the next
    {kM | kA | kB | kWrite | kEx, 0, hot<kM | kA | kB | kWrite | kEx>},
    {kM | kA | kB | kWrite | kEx | kEm, 0, hot<kM | kA | kB | kWrite | kEx | kEm>},
    {kM | kA | kB | kHistory, 1, hot<kM | kA | kB | kHistory, 1>},
    {kM | kB | kHistory, 1, hot<kM | kB | kHistory, 1>},
    {kM | kClipped | kA | kD | kHistory, 1, hot<kM | kClipped | kA | kD | kHistory, 1>},
    // multistep solvers: one or two registers read, the prediction kept
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
  // Without a mask the known region's coefficients mean nothing.
  const uint32_t present = s.mask != nullptr ? terms : terms & ~(kKnownY | kKnownZ);
  if (call.state == DType::kFloat32 && call.output == DType::kFloat32)
    for (const HotLoop& h : kHot)
      if (h.terms == present && h.history_count == s.row->history_count) return h.loop(call, s, begin, end, i);
  general(call, s, present, begin, end, i);
}

// ---- the reduction -----------------------------------------------------------------------------------

// Sums in float64 over sixteen lanes, element e into lane e mod 16, then the lanes in order: the same bits whatever the
// vectors' width.
struct Lanes {
  static constexpr int kLanes = 16;
  double lane[kLanes] = {};
  template <bool kSquared, class T>
  void add(const T* values, int n) {
    const auto term = [](double x) { return kSquared ? x * x : x; };
    int at = 0;
    for (; at + kLanes <= n; at += kLanes)  // a turn of fixed length, which the compiler makes vectors of
      for (int i = 0; i < kLanes; ++i) lane[i] += term(values[at + i]);
    for (int i = 0; at + i < n; ++i) lane[i] += term(values[at + i]);
  }
  double total() const {
    double sum = 0.0;
    for (double x : lane) sum += x;
    return sum;
  }
};

// What variance_of asks for, of values that come in pieces.
struct Spread {
  double first = 0.0;
  int64_t count = 0;
  Lanes sum, squares;

  void add(double* values, int n) {
    if (count == 0) first = values[0];
    for (int i = 0; i < n; ++i) values[i] -= first;
    sum.add<false>(values, n);
    squares.add<true>(values, n);
    count += n;
  }
  double variance() const { return variance_of(sum.total(), squares.total(), count); }
};

// Hands out values of a sample in pieces of 64 elements (fewer at the end), from element 0.
constexpr int kPiece = 64;

template <DType kType>
void widen(const void* base, int64_t at, int n, float* out) {
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) Vector::store(out + i, load_as<kType>(base, at + i));
  if (i < n) store_part<DType::kFloat32>(out, i, 0, n - i, load_part<kType>(base, at + i, 0, n - i));
}

void widen(DType type, const void* base, int64_t at, int n, float* out) {
  switch (type) {
    case DType::kFloat32: return widen<DType::kFloat32>(base, at, n, out);
    case DType::kFloat16: return widen<DType::kFloat16>(base, at, n, out);
    case DType::kBFloat16: return widen<DType::kBFloat16>(base, at, n, out);
  }
}

// The values of a piece, as apply.h wants to read them.
struct PieceIo {
  const float* state;
  const float (*outputs)[kPiece];
  int i;
  DF_INLINE F x() const { return Vector::load(state + i); }
  DF_INLINE F m(int j) const { return Vector::load(outputs[j] + i); }
};

struct Piece {
  alignas(64) float x[kPiece] = {}, outputs[kMaxOutputs][kPiece] = {}, m[kPiece] = {}, prediction[kPiece] = {};

  void read(const Call& call, const Sample& s, int64_t at, int n) {
    const Any terms{s.row->terms};
    if (terms.has(kP)) widen(call.state, s.x, at, n, x);
    for (int j = 0; j < kMaxOutputs; ++j)
      if (terms.has(kG0 << j)) widen(call.output, s.m[j], at, n, outputs[j]);
    for (int i = 0; i < kPiece; i += kWidth) {
      PieceIo io{x, outputs, i};
      const F output = model_output<Vector>(s.row->row, terms, io);
      Vector::store(m + i, output);
      Vector::store(prediction + i, raw_prediction<Vector>(s.row->row, terms, io.x(), output));
    }
  }
};

void dynamic_threshold(const Call& call, const Sample& s, Row& row, float* scratch) {
  const int64_t n = call.elements;
  Piece piece;
  bool finite = true;
  for (int64_t at = 0; at < n; at += kPiece) {
    const int count = static_cast<int>(std::min<int64_t>(kPiece, n - at));
    piece.read(call, s, at, count);
    for (int i = 0; i < count; ++i) {
      scratch[at + i] = std::fabs(piece.prediction[i]);
      finite = finite && scratch[at + i] <= std::numeric_limits<float>::max();
    }
  }
  if (!finite) return set_threshold(row, 1.0);
  const double position = quantile_position(row, n);
  const auto below = std::min(static_cast<int64_t>(position), n - 1);
  // A comparator of our own keeps the standard library's template out of the shared symbols.
  const auto less = [](float a, float b) { return a < b; };
  std::nth_element(scratch, scratch + below, scratch + n, less);
  const double low = scratch[below];
  const double high = below + 1 < n ? static_cast<double>(*std::min_element(scratch + below + 1, scratch + n, less)) : low;
  set_threshold(row, low + (position - static_cast<double>(below)) * (high - low));
}

// m is summed in float64 here: where all values lie close together, the deviations of a rounded m would be its roundings.
void guidance_rescale(const Call& call, const Sample& s, Row& row) {
  Spread of_0, of_m;
  alignas(64) float output[kPiece];
  double m_0[kPiece], m[kPiece];
  for (int64_t at = 0; at < call.elements; at += kPiece) {
    const int count = static_cast<int>(std::min<int64_t>(kPiece, call.elements - at));
    std::fill_n(m, kPiece, 0.0);
    for (int j = 0; j < kMaxOutputs; ++j) {
      if (!reads_output(*s.row, j)) continue;
      widen(call.output, s.m[j], at, count, output);
      if (j == 0) std::copy_n(output, count, m_0);
      if (s.row->terms & (kG0 << j))
        for (int i = 0; i < count; ++i) m[i] += static_cast<double>(row.g[j]) * static_cast<double>(output[i]);
    }
    of_0.add(m_0, count);
    of_m.add(m, count);
  }
  rescale_guidance(row, of_m.variance(), of_0.variance());
}

// The sum of the squares of the normals that the row makes.
Lanes squares_of_noise(const Call& call, const Sample& s) {
  Lanes squares_z;
  alignas(64) float z[kPiece];
  const Noise noise(s.seed, s.noise_row, s.index);
  // Whole counters only: the sample's own elements begin `lead` into the first one.
  const auto lead = static_cast<int64_t>(call.element_offset % 4);
  for (int64_t at = -lead; at < call.elements; at += kPiece) {
    const auto from = static_cast<int>(std::max<int64_t>(0, -at));
    const auto to = static_cast<int>(std::min<int64_t>(kPiece, call.elements - at));
    for (int g = 0; g < kPiece; g += kBlock) {
      F block[kBlock / kWidth];
      normals_of_counters<Vector>(block, noise, (call.element_offset + static_cast<uint64_t>(at + g)) / 4, kStreamRow);
      for (int j = 0; j < kBlock / kWidth; ++j) Vector::store(z + g + j * kWidth, block[j]);
    }
    squares_z.add<true>(z + from, to - from);
  }
  return squares_z;
}

void langevin(const Call& call, const Sample& s, Row& row) {
  const int32_t given = given_noise(*s.row);
  Lanes squares_m, squares_z;
  if (given < 0) squares_z = squares_of_noise(call, s);
  Piece piece;
  for (int64_t at = 0; at < call.elements; at += kPiece) {
    const int count = static_cast<int>(std::min<int64_t>(kPiece, call.elements - at));
    piece.read(call, s, at, count);
    squares_m.add<true>(piece.m, count);
    if (given >= 0) squares_z.add<true>(s.h[given] + at, count);
  }
  set_langevin(row, squares_m.total(), squares_z.total(), given);
}

void reduce(const Call& call, int64_t i, ReadyRow& out, float* scratch) {
  const Sample& s = call.samples[i];
  Row row = s.row->row;
  switch (static_cast<Reduce>(row.reduce)) {
    case Reduce::kNone: break;
    case Reduce::kDynamicThreshold: dynamic_threshold(call, s, row, scratch); break;
    case Reduce::kGuidanceRescale: guidance_rescale(call, s, row); break;
    case Reduce::kLangevin:
    case Reduce::kLangevinGiven: langevin(call, s, row); break;
  }
  out = ready(row);
  out.terms = terms_after_reduction(s.row->terms, out.terms);
}

// ---- normals and words, alone ----------------------------------------------------------------------------

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
#if defined(DF_ISA_AVX512)
  __builtin_cpu_init();
  const bool can = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
  return can ? nullptr : "this processor has no AVX-512 (F, BW, DQ, VL)";
#elif defined(DF_ISA_AVX2)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? nullptr : "this processor has no AVX2 with FMA";
#else
  return nullptr;
#endif
}

}  // namespace

void DF_PASTE(forward_, DF_ISA)(const Forward&, int64_t, int64_t, int64_t);  // forward_cpu.cpp

extern const Kernel DF_PASTE(kernel_, DF_ISA);
const Kernel DF_PASTE(kernel_, DF_ISA) = {DF_STRING(DF_ISA),          step,       reduce, normals, philox,
                                          DF_PASTE(forward_, DF_ISA), unavailable};

}  // namespace df
