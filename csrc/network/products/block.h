// The micro-kernel of all products: a block of rows times panels of columns, with the sums in registers.
//
//   out[r][n] = stages(start[n] + sum_k a[r][k] w[k][n])
//
// Each output is one chain of fma over k ascending, begun at start[n] or zero. So it has the same bits on every instruction set, in
// every shape of block and in any company of rows.
//
// Row r of `a` is given by a pointer; k runs over `tap_count` runs of `run` consecutive floats at a[r] + taps[t]. For a convolution
// a run is one row of its kernel: no matrix of patches is ever made (implicit im2col).
//
// For sources that are compiled once per instruction set.
#pragma once

#include <cstdint>

#include "network/products/panel.h"
#include "simd/simd.h"

#define DF_UNROLL _Pragma("GCC unroll 32")

namespace df::network {
namespace {

// Vectors of sums that a block may keep in registers, with room for the weights of one k and one value of `a`.
#if defined(DF_ISA_AVX512)
constexpr int kSums = 28, kUnrollK = 4;  // 32 registers. Pointers to 14 rows do not fit 16 registers: read each once per 4 k.
#elif defined(DF_ISA_AVX2)
constexpr int kSums = 12, kUnrollK = 1;  // 16 registers
#elif defined(DF_ISA_NEON)
constexpr int kSums = 24, kUnrollK = 1;  // 32 registers
#else
constexpr int kSums = 16, kUnrollK = 1;
#endif
constexpr int kPanelVectors = static_cast<int>(kPanel) / kWidth;
constexpr int kMaxBlockRows = kSums / kPanelVectors > 14 ? 14 : kSums / kPanelVectors;

struct RowStage {
  bool multiply;
  const float* const* rows;  // one pointer per row of `a`
};

// What all blocks of one call share.
struct RowProduct {
  const int64_t* taps;
  int64_t tap_count, run;
  int64_t panel_stride;  // floats from one panel to the next
  const RowStage* stages;
  int stage_count;
};

DF_INLINE F apply_stage(bool multiply, F value, F operand) {
  return multiply ? Vector::mul_f(value, operand) : Vector::add(value, operand);
}

// Rows [row, row + kRows) times panels [0, kPanels) from `w`, to columns [column, column + 16 kPanels) of `out`.
template <int kRows, int kPanels>
__attribute__((noinline)) void block(const RowProduct& product, const float* const* a, const float* w, const float* start,
                                     float* const* out, int64_t row, int64_t column) {
  constexpr int kVectors = kPanels * kPanelVectors;
  F sums[kRows][kVectors];
  DF_UNROLL for (int j = 0; j < kVectors; ++j) {
    const F first = start != nullptr ? Vector::load(start + j * kWidth) : Vector::set(0.0f);
    DF_UNROLL for (int r = 0; r < kRows; ++r) sums[r][j] = first;
  }
  const int64_t stride = product.panel_stride, run = product.run;
  for (int64_t t = 0; t < product.tap_count; ++t) {
    const float* p[kRows];
    DF_UNROLL for (int r = 0; r < kRows; ++r) p[r] = a[row + r] + product.taps[t];
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
      F weights[kVectors];
      DF_UNROLL for (int j = 0; j < kVectors; ++j) weights[j] =
          Vector::load(w + (j / kPanelVectors) * stride + (j % kPanelVectors) * kWidth);
      DF_UNROLL for (int r = 0; r < kRows; ++r) {
        const F x = Vector::set(p[r][k]);
        DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] = Vector::fma(x, weights[j], sums[r][j]);
      }
      w += kPanel;
    };
    int64_t k = 0;
    if constexpr (kUnrollK > 1)
      for (; k + kUnrollK <= run; k += kUnrollK) DF_UNROLL for (int u = 0; u < kUnrollK; ++u) step(k + u);
    for (; k < run; ++k) step(k);
  }
  for (int s = 0; s < product.stage_count; ++s) {
    const RowStage& stage = product.stages[s];
    if (stage.multiply) {
      DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] =
          Vector::mul_f(sums[r][j], Vector::load(stage.rows[row + r] + column + j * kWidth));
    } else {
      DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] =
          Vector::add(sums[r][j], Vector::load(stage.rows[row + r] + column + j * kWidth));
    }
  }
  DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j)
      Vector::store(out[row + r] + column + j * kWidth, sums[r][j]);
}

using Block = void (*)(const RowProduct&, const float* const*, const float*, const float*, float* const*, int64_t, int64_t);

// How many panels a block of that many rows takes at once: few rows with one panel would wait for the latency of fma.
constexpr int block_panels(int64_t rows) {
  const int64_t fit = kSums / (rows * kPanelVectors);
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

template <int kRows>
Block block_of(int panels) {
  constexpr int kMost = block_panels(kRows);
  if constexpr (kMost >= 4)
    if (panels == 4) return block<kRows, 4>;
  if constexpr (kMost >= 2)
    if (panels == 2) return block<kRows, 2>;
  return block<kRows, 1>;
}

DF_INLINE Block block_for(int64_t rows, int panels) {
  switch (rows) {
#define DF_CASE(n)                                           \
  case n:                                                    \
    if constexpr (n <= kMaxBlockRows)                        \
      return block_of<(n <= kMaxBlockRows ? n : 1)>(panels); \
    else                                                     \
      break;
    DF_CASE(2)
    DF_CASE(3) DF_CASE(4) DF_CASE(5) DF_CASE(6) DF_CASE(7) DF_CASE(8) DF_CASE(9) DF_CASE(10) DF_CASE(11) DF_CASE(12) DF_CASE(13)
        DF_CASE(14)
#undef DF_CASE
  }
  return block_of<1>(panels);
}

// The last panel of a matrix whose columns are no multiple of 16: the block goes to a buffer, and its valid columns on from there.
__attribute__((noinline)) inline void last_panel(const RowProduct& product, const float* const* a, int64_t rows, const float* w,
                                                 const float* start, float* const* out, int64_t row, int64_t column,
                                                 int64_t valid) {
  alignas(64) float buffer[kMaxBlockRows * kPanel], first[kPanel] = {};
  float* lines[kMaxBlockRows];
  const float* in[kMaxBlockRows];
  for (int64_t r = 0; r < rows; ++r) {
    lines[r] = buffer + r * kPanel;
    in[r] = a[row + r];
  }
  for (int64_t n = 0; n < valid && start != nullptr; ++n) first[n] = start[n];
  RowProduct plain = product;
  plain.stage_count = 0;
  block_for(rows, 1)(plain, in, w, start != nullptr ? first : nullptr, lines, 0, 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < valid; ++n) {
      float value = lines[r][n];
      for (int s = 0; s < product.stage_count; ++s) {
        const float operand = product.stages[s].rows[row + r][column + n];
        value = product.stages[s].multiply ? value * operand : value + operand;
      }
      out[row + r][column + n] = value;
    }
  }
}

// All rows times all columns, in blocks of nearly equal height.
inline void multiply_rows(const RowProduct& product, const float* const* a, int64_t rows, const float* panels, int64_t columns,
                          const float* start, float* const* out) {
  const int64_t blocks = (rows + kMaxBlockRows - 1) / kMaxBlockRows;
  const int64_t height = rows / blocks, taller = rows % blocks;  // the first `taller` blocks have one row more
  const int64_t whole = columns / kPanel;
  int width = block_panels(height + (taller > 0 ? 1 : 0));
  for (int64_t panel = 0; panel < whole; panel += width) {
    while (panel + width > whole) width /= 2;
    const float* w = panels + panel * product.panel_stride;
    const int64_t column = panel * kPanel;
    const float* first = start != nullptr ? start + column : nullptr;
    const Block tall = block_for(height + 1, width), low = block_for(height, width);
    int64_t row = 0;
    for (int64_t b = 0; b < taller; ++b, row += height + 1) tall(product, a, w, first, out, row, column);
    for (; row < rows; row += height) low(product, a, w, first, out, row, column);
  }
  if (const int64_t valid = columns % kPanel; valid != 0) {
    const int64_t column = whole * kPanel;
    for (int64_t row = 0, b = 0; row < rows; ++b) {
      const int64_t n = height + (b < taller ? 1 : 0);
      last_panel(product, a, n, panels + whole * product.panel_stride, start != nullptr ? start + column : nullptr, out, row,
                 column, valid);
      row += n;
    }
  }
}

}  // namespace
}  // namespace df::network
