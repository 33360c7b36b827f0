// Softmax over the inner dimension: e^(x - max) / sum. The sum has sixteen lanes; the maximum does not depend on an order.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

inline void softmax_line(float* x, int64_t n) {
  float most = -INFINITY;
  for (int64_t i = 0; i < n; ++i) most = x[i] > most ? x[i] : most;  // a NaN makes the sum NaN
  const F peak = V::set(most);
  each_vector(n, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
    store<kWhole>(x + i, count, exp(V::sub(load<kWhole>(x + i, count), peak)));
  });
  const F factor = V::set(static_cast<float>(1.0 / lane_sum<false>(x, n, 0.0f)));
  each_vector(n, [&]<bool kWhole>(int64_t i, int count)
                     __attribute__((always_inline)) { store<kWhole>(x + i, count, V::mul_f(load<kWhole>(x + i, count), factor)); });
}

void run_softmax(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedSoftmax&>(prepared);
  float *moments = scratch, *work = moments + round_up(op.prologue.moments), *point = work + round_up(op.prologue.work);
  for (int64_t row = 0; row < rows.count; ++row) {
    compute_moments(op.prologue, rows, row, moments, work);
    const Line in{op.prologue, rows, row, moments}, out{op.epilogue, rows, row, nullptr};
    for (int64_t p = 0; p < op.prologue.points; ++p) {
      read_points(in, p, 1, point, 0);
      softmax_line(point, op.prologue.inner);
      write_points(out, p, 1, point, 0);
    }
  }
}

}  // namespace
}  // namespace df::network
