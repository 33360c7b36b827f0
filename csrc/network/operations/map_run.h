// Map: the prologue, from a view to a view.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

void run_map(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedMap&>(prepared);
  float *moments = scratch, *work = moments + round_up(op.prologue.moments), *point = work + round_up(op.prologue.work);
  const bool contiguous = op.output.contiguous();
  const int64_t n = op.prologue.inner;
  for (int64_t row = 0; row < rows.count; ++row) {
    compute_moments(op.prologue, rows, row, moments, work);
    const Line line{op.prologue, rows, row, moments};
    float* out = rows.write(op.output.buffer, row) + op.output.offset;
    if (contiguous && op.output.points.table.empty()) {
      read_points(line, 0, op.prologue.points, out, op.output.points.stride);
      continue;
    }
    for (int64_t p = 0; p < op.prologue.points; ++p) {
      float* y = out + op.output.points.at(p);
      read_points(line, p, 1, contiguous ? y : point, 0);
      for (int64_t i = 0; i < n && !contiguous; ++i) y[op.output.inner.at(i)] = point[i];
    }
  }
}

}  // namespace
}  // namespace df::network
