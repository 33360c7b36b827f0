// The reductions of step.h on the CPU, compiled once per instruction set: one pass over a sample, which sets coefficients of its
// row.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "random/noise.h"
#include "simd/simd.h"
#include "step/apply.h"
#include "step/cpu/terms.h"
#include "step/reduce.h"
#include "step/step.h"

namespace df {
namespace {

// A float64 sum over sixteen lanes: element e goes to lane e mod 16, and the lanes are added in order. So the bits do not depend
// on the width of the vectors.
struct Lanes {
  static constexpr int kLanes = 16;
  double lane[kLanes] = {};
  template <bool kSquared, class T>
  void add(const T* values, int n) {
    const auto term = [](double x) { return kSquared ? x * x : x; };
    int at = 0;
    for (; at + kLanes <= n; at += kLanes)  // fixed length: the compiler vectorises it
      for (int i = 0; i < kLanes; ++i) lane[i] += term(values[at + i]);
    for (int i = 0; at + i < n; ++i) lane[i] += term(values[at + i]);
  }
  double total() const {
    double sum = 0.0;
    for (double x : lane) sum += x;
    return sum;
  }
};

// The sums for variance_of, of values that arrive in pieces.
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

// A sample is reduced in pieces of 64 elements (fewer at the end), from element 0.
constexpr int kPiece = 64;

// Converts n elements from index `at` on to float32.
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

// Reads the values of a piece for apply.h.
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
  // A lambda gives nth_element internal linkage: std::less would instantiate a symbol shared between instruction sets.
  const auto less = [](float a, float b) { return a < b; };
  std::nth_element(scratch, scratch + below, scratch + n, less);
  const double low = scratch[below];
  const double high = below + 1 < n ? static_cast<double>(*std::min_element(scratch + below + 1, scratch + n, less)) : low;
  set_threshold(row, low + (position - static_cast<double>(below)) * (high - low));
}

// m is computed in float64: if all values are close together, the deviations of a rounded m would be its rounding errors.
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

// The sum of squares of the normals that the row draws.
Lanes squares_of_noise(const Call& call, const Sample& s) {
  Lanes squares_z;
  alignas(64) float z[kPiece];
  const Noise noise(s.seed, s.noise_row, s.index);
  // Normals come in whole counters; the sample's first element is number `lead` of the first counter.
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

void reduce(const Call& call, int64_t i, PreparedRow& out, float* scratch) {
  const Sample& s = call.samples[i];
  Row row = s.row->row;
  switch (static_cast<Reduce>(row.reduce)) {
    case Reduce::kNone: break;
    case Reduce::kDynamicThreshold: dynamic_threshold(call, s, row, scratch); break;
    case Reduce::kGuidanceRescale: guidance_rescale(call, s, row); break;
    case Reduce::kLangevin:
    case Reduce::kLangevinGiven: langevin(call, s, row); break;
  }
  out = prepare_row(row);
  out.terms = terms_after_reduction(s.row->terms, out.terms);
}

}  // namespace
}  // namespace df
