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
constexpr int kSums = 28, kRegisters = 32;
#elif defined(DF_ISA_AVX2)
constexpr int kSums = 12, kRegisters = 16;
#elif defined(DF_ISA_NEON)
constexpr int kSums = 24, kRegisters = 32;
#else
constexpr int kSums = 16, kRegisters = 16;
#endif

// How many k one turn of the loop takes. Several save branches, and reads of the pointers to 14 rows, which do not fit 16
// registers. But if most registers hold sums, gcc 12 spills one of these: on a Zen 3 the block of 6 x 16 is 5 % slower with four k
// than with one, and 30 % with two; the block of 4 x 16 is 5 % faster.
constexpr int unrolled(int rows, int vectors) { return kWidth == 16 || vectors == 1 || rows * vectors <= kRegisters / 2 ? 4 : 1; }

constexpr int kPanelVectors = static_cast<int>(kPanel) / kWidth;
// Half a panel is computed alone where it is at least a vector: for matrices that end with at most eight columns.
constexpr int kHalfVectors = kPanelVectors / 2;
constexpr int64_t kHalf = kHalfVectors > 0 ? kPanel / 2 : kPanel;

constexpr int block_rows(int vectors) { return kSums / vectors < 14 ? kSums / vectors : 14; }
constexpr int kMaxBlockRows = block_rows(kHalfVectors > 0 ? kHalfVectors : kPanelVectors);

// Half a panel at the end goes with the panel before it, where registers allow: alone it loads a value of `a` for each fma.
constexpr bool kJoins = kHalfVectors > 0 && block_rows(kPanelVectors + kHalfVectors) >= 4;

struct RowStage {
  bool multiply;
  const float* const* rows;  // one pointer per row of `a`
};

// What all blocks of some rows share. k runs over taps [first_tap, first_tap + tap_count), each `run` long; a row of `a` points to
// where the first of them is.
struct RowProduct {
  const int64_t* taps;
  int64_t first_tap, tap_count, run;
  int64_t begin, rows;   // rows [begin, begin + rows) of the call
  int64_t panel_stride;  // floats from one panel to the next
  const RowStage* stages;
  int stage_count;
};

// A part of a chain: taps [begin, end) of a product. The first begins at `start` or zero, the others at the sums in `out`; the
// stages follow the last one. Meanwhile, weights that are needed next are fetched into the second cache: one line for each k, and
// from one k to the next `fetch_step` bytes on.
struct Part {
  int64_t begin, end;
  const char* fetch;
  int64_t fetch_step;
};

constexpr int64_t kLine = 64;  // bytes: the 16 columns of one k

// k that blocks take before the next panel's turn: 16 KiB of weights, which stay in the first cache for all rows.
constexpr int64_t kDepth = 256;

DF_INLINE F apply_stage(bool multiply, F value, F operand) {
  return multiply ? Vector::mul_f(value, operand) : Vector::add(value, operand);
}

// `count` blocks of kRows rows from `row` on, times the first vectors of the panels at `w`, to `out` from `column` on.
template <int kRows, int kVectors>
__attribute__((noinline)) void block(const RowProduct& product, const Part& part, const float* const* a, const float* w,
                                     const float* start, float* const* out, int64_t row, int64_t column, int64_t count) {
  const int64_t stride = product.panel_stride, run = product.run;
  const bool begins = part.begin <= product.first_tap;
  const int stages = part.end == product.first_tap + product.tap_count ? product.stage_count : 0;
  const char* fetch = part.fetch;
  w += part.begin * run * kPanel;
  for (const int64_t end = row + count * kRows; row < end; row += kRows) {
    F sums[kRows][kVectors];
    if (begins) {
      DF_UNROLL for (int j = 0; j < kVectors; ++j) {
        const F first = start != nullptr ? Vector::load(start + j * kWidth) : Vector::set(0.0f);
        DF_UNROLL for (int r = 0; r < kRows; ++r) sums[r][j] = first;
      }
    } else {
      DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] =
          Vector::load(out[row + r] + column + j * kWidth);
    }
    const float* weights = w;
    for (int64_t t = part.begin; t < part.end; ++t) {
      const int64_t offset = product.taps[t] - product.taps[product.first_tap];
      const float* p[kRows];
      DF_UNROLL for (int r = 0; r < kRows; ++r) p[r] = a[row + r] + offset;
      const auto step = [&](int64_t k) __attribute__((always_inline)) {
        F b[kVectors];
        DF_UNROLL for (int j = 0; j < kVectors; ++j) b[j] =
            Vector::load(weights + (j / kPanelVectors) * stride + (j % kPanelVectors) * kWidth);
        DF_UNROLL for (int r = 0; r < kRows; ++r) {
          const F x = Vector::set(p[r][k]);
          DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] = Vector::fma(x, b[j], sums[r][j]);
        }
        weights += kPanel;
        DF_UNROLL for (int j = 0; j < kVectors; j += kPanelVectors)
            __builtin_prefetch(fetch + j / kPanelVectors * stride * static_cast<int64_t>(sizeof(float)), 0, 2);
        fetch += part.fetch_step;
      };
      int64_t k = 0;
      constexpr int kUnrolled = unrolled(kRows, kVectors);
      if constexpr (kUnrolled > 1)
        for (; k + kUnrolled <= run; k += kUnrolled) DF_UNROLL for (int u = 0; u < kUnrolled; ++u) step(k + u);
      for (; k < run; ++k) step(k);
    }
    for (int s = 0; s < stages; ++s) {
      const RowStage& stage = product.stages[s];
      if (stage.multiply) {
        DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] =
            Vector::mul_f(sums[r][j], Vector::load(stage.rows[row + r] + column + j * kWidth));
      } else {
        DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] =
            Vector::add(sums[r][j], Vector::load(stage.rows[row + r] + column + j * kWidth));
      }
    }
    float* to[kRows];
    DF_UNROLL for (int r = 0; r < kRows; ++r) to[r] = out[row + r] + column;
    DF_UNROLL for (int r = 0; r < kRows; ++r) DF_UNROLL for (int j = 0; j < kVectors; ++j)
        Vector::store(to[r] + j * kWidth, sums[r][j]);
  }
}

using Block = void (*)(const RowProduct&, const Part&, const float* const*, const float*, const float*, float* const*, int64_t,
                       int64_t, int64_t);

// How many panels a block of that many rows takes at once: few rows with one panel would wait for the latency of fma. Besides the
// sums there must be room for one k of the rows or of the panels, whichever is less, and for one value of the other.
constexpr bool fits(int64_t rows, int64_t vectors) {
  return rows * vectors <= kSums && rows * vectors + (rows < vectors ? rows : vectors) + 1 <= kRegisters;
}
constexpr int block_panels(int64_t rows) { return fits(rows, 4 * kPanelVectors) ? 4 : fits(rows, 2 * kPanelVectors) ? 2 : 1; }

template <int kRows>
DF_INLINE Block block_of(int vectors) {
  if constexpr (block_panels(kRows) >= 4)
    if (vectors == 4 * kPanelVectors) return block<kRows, 4 * kPanelVectors>;
  if constexpr (block_panels(kRows) >= 2)
    if (vectors == 2 * kPanelVectors) return block<kRows, 2 * kPanelVectors>;
  if constexpr (kHalfVectors > 0) {
    if (vectors == kHalfVectors) return block<kRows, kHalfVectors>;
    if constexpr (kJoins && kRows <= block_rows(kPanelVectors + kHalfVectors))
      if (vectors == kPanelVectors + kHalfVectors) return block<kRows, kPanelVectors + kHalfVectors>;
  }
  if constexpr (kRows <= block_rows(kPanelVectors)) return block<kRows, kPanelVectors>;
  return nullptr;
}

inline Block block_for(int64_t rows, int vectors) {
  switch (rows) {
#define DF_CASE(n) \
  case n: return block_of<(n <= kMaxBlockRows ? n : 1)>(vectors);
    DF_CASE(1)
    DF_CASE(2)
    DF_CASE(3)
    DF_CASE(4)
    DF_CASE(5)
    DF_CASE(6)
    DF_CASE(7)
    DF_CASE(8)
    DF_CASE(9)
    DF_CASE(10)
    DF_CASE(11)
    DF_CASE(12)
    DF_CASE(13)
    DF_CASE(14)
#undef DF_CASE
  }
  return nullptr;
}

// Rows cut into blocks of nearly equal height: the first `taller` have one row more.
struct Blocks {
  int64_t count, height, taller;
  Block low, tall;

  Blocks() = default;
  DF_INLINE Blocks(int64_t rows, int vectors) {
    const auto most = static_cast<uint32_t>(block_rows(vectors)), n = static_cast<uint32_t>(rows);
    const uint32_t blocks = (n + most - 1) / most;
    count = blocks;
    height = n / blocks;
    taller = n % blocks;
    low = block_for(height, vectors);
    tall = taller > 0 ? block_for(height + 1, vectors) : nullptr;
  }
};

// A part of all chains of some whole vectors of columns. Its blocks share the fetching of as many weights at `next`.
DF_INLINE void multiply_columns(const RowProduct& product, const Blocks& blocks, int64_t begin, int64_t end, const float* const* a,
                                const float* w, const float* start, float* const* out, int64_t column, const float* next) {
  const auto count = static_cast<uint32_t>(blocks.count);
  Part part{begin, end, reinterpret_cast<const char*>(next), (static_cast<uint32_t>(kLine) + count - 1) / count};
  const int64_t fetched = (end - begin) * product.run * part.fetch_step, row = product.begin;
  const int64_t tall_rows = blocks.taller * (blocks.height + 1);
  if (blocks.taller > 0) blocks.tall(product, part, a, w, start, out, row, column, blocks.taller);
  part.fetch += blocks.taller * fetched;
  if (tall_rows < product.rows) blocks.low(product, part, a, w, start, out, row + tall_rows, column, blocks.count - blocks.taller);
}

constexpr int kMaxProducts = 8;  // that share their weights

// Several products with the same weights, in parts of about kDepth, so that each part of a panel serves all rows before the next is
// read. Each part fetches the next one, which lies behind it: that of the same panels, or the first of the next panels.
class Products {
 public:
  DF_INLINE Products(const RowProduct* products, int count) : products_(products), count_(count) {
    const int64_t run = products[0].run;
    step_ = run < kDepth ? kDepth / run : 1;
    begin_ = end_ = products[0].first_tap;
    for (int i = 0; i < count; ++i) {
      const int64_t last = products[i].first_tap + products[i].tap_count;
      if (products[i].first_tap < begin_) begin_ = products[i].first_tap;
      if (last > end_) end_ = last;
    }
  }

  // Chooses the blocks of that many vectors.
  DF_INLINE void choose(int vectors) {
    panels_ = (vectors + kPanelVectors - 1) / kPanelVectors;
    for (int i = 0; i < count_; ++i) blocks_[i] = Blocks(products_[i].rows, vectors);
  }
  DF_INLINE int64_t tallest() const {
    int64_t tallest = 1;
    for (int i = 0; i < count_; ++i) {
      const int64_t height = blocks_[i].height + (blocks_[i].taller > 0 ? 1 : 0);
      if (height > tallest) tallest = height;
    }
    return tallest;
  }

  DF_INLINE void multiply(const float* const* a, const float* w, const float* start, float* const* out, int64_t column) const {
    const int64_t stride = products_[0].panel_stride, run = products_[0].run;
    for (int64_t from = begin_; from < end_ || from == begin_; from += step_) {
      const float* next = from + step_ < end_ ? w + (from + step_) * run * kPanel : w + panels_ * stride;
      for (int i = 0; i < count_; ++i) {
        const RowProduct& product = products_[i];
        const int64_t first = product.first_tap, last = first + product.tap_count;
        const bool empty = first == last && from == begin_;  // then the result is the start
        const int64_t begin = from > first && !empty ? from : first, end = from + step_ < last && !empty ? from + step_ : last;
        if (begin < end || empty) multiply_columns(product, blocks_[i], begin, end, a, w, start, out, column, next);
      }
    }
  }

 private:
  const RowProduct* products_;
  int count_;
  int64_t begin_, end_, step_;  // taps
  int64_t panels_ = 1;
  Blocks blocks_[kMaxProducts];
};

// The columns of the last panel, if they are no multiple of a vector: blocks go to a buffer, and valid columns on from there.
__attribute__((noinline)) inline void last_columns(const RowProduct& product, const float* const* a, const float* w,
                                                   const float* start, float* const* out, int64_t column, int valid, int vectors) {
  alignas(64) float buffer[kMaxBlockRows * kPanel], first[kPanel] = {};
  float* lines[kMaxBlockRows];
  for (int r = 0; r < kMaxBlockRows; ++r) lines[r] = buffer + r * kPanel;
  for (int n = 0; n < valid && start != nullptr; ++n) first[n] = start[n];
  const int most = block_rows(vectors);
  RowProduct rows = product;
  rows.begin = 0;
  rows.stage_count = 0;
  const int64_t end_tap = product.first_tap + product.tap_count;
  for (int64_t row = product.begin, end = row + product.rows; row < end; row += most) {
    rows.rows = end - row < most ? end - row : most;
    multiply_columns(rows, Blocks(rows.rows, vectors), product.first_tap, end_tap, a + row, w, start != nullptr ? first : nullptr,
                     lines, 0, w + product.panel_stride);
    for (int64_t r = 0; r < rows.rows; ++r) {
      for (int c = 0; c < valid; c += kWidth) {
        const int count = valid - c < kWidth ? valid - c : kWidth;
        F value = Vector::load(lines[r] + c);
        for (int s = 0; s < product.stage_count; ++s)
          value = apply_stage(product.stages[s].multiply, value,
                              load_part<DType::kFloat32>(product.stages[s].rows[row + r], column + c, 0, count));
        store_part<DType::kFloat32>(out[row + r], column + c, 0, count, value);
      }
    }
  }
}

// All rows of some products, which share their weights, times all columns.
inline void multiply_rows(const RowProduct* products, int count, const float* const* a, const float* panels, int64_t columns,
                          const float* start, float* const* out) {
  const int64_t stride = products[0].panel_stride;
  int64_t whole = columns / kPanel;
  const bool joined = kJoins && whole > 0 && columns == whole * kPanel + kHalf;
  if (joined) --whole;
  Products all(products, count);
  all.choose(kPanelVectors);
  int width = block_panels(all.tallest());
  if (width > 1 && whole > 1) all.choose(width * kPanelVectors);
  for (int64_t panel = 0; panel < whole; panel += width) {
    if (panel + width > whole) {
      while (panel + width > whole) width /= 2;
      all.choose(width * kPanelVectors);
    }
    const int64_t column = panel * kPanel;
    all.multiply(a, panels + panel * stride, start != nullptr ? start + column : nullptr, out, column);
  }
  const int64_t column = whole * kPanel, valid = columns - column;
  if (valid == 0) return;
  const float *w = panels + whole * stride, *first = start != nullptr ? start + column : nullptr;
  const int half = valid <= kHalf && kHalfVectors > 0 ? kHalfVectors : kPanelVectors;
  const int vectors = joined ? kPanelVectors + kHalfVectors : half;
  if (valid == vectors * kWidth) {
    all.choose(vectors);
    all.multiply(a, w, first, out, column);
    return;
  }
  for (int i = 0; i < count; ++i) last_columns(products[i], a, w, first, out, column, static_cast<int>(valid), vectors);
}

// The length of the pieces into which a run is cut: its longest divisor up to kDepth, or all of it if that is short.
DF_INLINE int64_t piece_of(int64_t run) {
  for (int64_t pieces = (run + kDepth - 1) / kDepth; pieces * 32 <= run; ++pieces)
    if (run % pieces == 0) return run / pieces;
  return run;
}

}  // namespace
}  // namespace df::network
