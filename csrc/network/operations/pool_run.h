// Pool: for each output pixel the sum or maximum over its taps, in order; a mean divides once.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

void run_pool(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedPool&>(prepared);
  const int64_t n = op.prologue.inner;
  float *moments = scratch, *work = moments + round_up(op.prologue.moments), *copy = work + round_up(op.prologue.work);
  float* result = copy + round_up(op.prologue.points * round_up(n));
  const Access& view = op.prologue.view;
  const bool in_place = op.prologue.list.empty() && view.contiguous() && view.points.table.empty();
  const bool mean = op.function == Reduction::kMean;
  for (int64_t row = 0; row < rows.count; ++row) {
    compute_moments(op.prologue, rows, row, moments, work);
    const float* image = rows.read(view.buffer, row) + view.offset;
    int64_t stride = view.points.stride;
    if (!in_place) {
      stride = round_up(n);
      read_points(Line{op.prologue, rows, row, moments}, 0, op.prologue.points, copy, stride);
      image = copy;
    }
    const Line out{op.epilogue, rows, row, nullptr};
    for (int64_t p = 0; p < op.epilogue.points; ++p) {
      const int32_t *tap = op.taps.data() + op.tap_begin[static_cast<size_t>(p)],
                    *end = op.taps.data() + op.tap_begin[static_cast<size_t>(p) + 1];
      const F divisor = V::set(op.divisor[static_cast<size_t>(p)]);
      each_vector(n, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
        F value = V::set(mean ? 0.0f : -INFINITY);
        for (const int32_t* t = tap; t < end; ++t) {
          const F x = load<kWhole>(image + *t * stride + i, count);
          value = mean ? V::add(value, x) : maximum(value, x);
        }
        store<kWhole>(result + i, count, mean ? V::div(value, divisor) : value);
      });
      write_points(out, p, 1, result, 0);
    }
  }
}

}  // namespace
}  // namespace df::network
