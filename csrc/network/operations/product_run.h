// Product of two values that depend on the sample: each output is a chain over k ascending.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

// out[j] = chain over k of a[k] b[k][j] for whole vectors of columns; rows of b are `stride` apart.
template <int kVectors>
DF_INLINE void row_product(const float* a, const float* b, int64_t stride, int64_t depth, float* out) {
  F sums[kVectors];
  for (F& sum : sums) sum = V::set(0.0f);
  for (int64_t k = 0; k < depth; ++k) {
    const F x = V::set(a[k]);
    for (int v = 0; v < kVectors; ++v) sums[v] = V::fma(x, V::load(b + k * stride + v * kWidth), sums[v]);
  }
  for (int v = 0; v < kVectors; ++v) V::store(out + v * kWidth, sums[v]);
}

void run_product(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedProduct&>(prepared);
  const int64_t width = round_up(op.columns);
  float *b = scratch, *a = b + op.depth * width, *out = a + round_up(op.depth);
  for (int64_t row = 0; row < rows.count; ++row) {
    const Line line{op.epilogue, rows, row, nullptr};
    for (int64_t lead = 0; lead < op.lead; ++lead) {
      const float* from = rows.read(op.b.buffer, row) + op.b.offset + op.b.lead.at(lead);
      for (int64_t k = 0; k < op.depth; ++k)
        for (int64_t j = 0; j < width; ++j) b[k * width + j] = j < op.columns ? from[op.b.rows.at(k) + op.b.columns.at(j)] : 0.0f;
      for (int64_t i = 0; i < op.rows; ++i) {
        const float* a_row = rows.read(op.a.buffer, row) + op.a.offset + op.a.lead.at(lead) + op.a.rows.at(i);
        for (int64_t k = 0; k < op.depth; ++k) a[k] = a_row[op.a.columns.at(k)];
        int64_t j = 0;
        for (; j + 4 * kLanes <= width; j += 4 * kLanes) row_product<4 * kLanes / kWidth>(a, b + j, width, op.depth, out + j);
        for (; j < width; j += kLanes) row_product<kLanes / kWidth>(a, b + j, width, op.depth, out + j);
        write_points(line, lead * op.rows + i, 1, out, 0);
      }
    }
  }
}

}  // namespace
}  // namespace df::network
