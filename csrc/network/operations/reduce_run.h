// Reduce: sums and means in float64 over elements in order, rounded once.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

inline float larger_of(float a, float b) { return a != a || a > b ? a : b; }  // NaN if either is
inline float smaller_of(float a, float b) { return a != a || a < b ? a : b; }

void run_reduce(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedReduce&>(prepared);
  const int64_t n = op.prologue.inner;
  float *moments = scratch, *work = moments + round_up(op.prologue.moments), *point = work + round_up(op.prologue.work);
  float* results = point + round_up(n);
  double* sums = reinterpret_cast<double*>(results + round_up(op.results));
  const bool sum = op.function == Reduction::kSum || op.function == Reduction::kMean;
  for (int64_t row = 0; row < rows.count; ++row) {
    compute_moments(op.prologue, rows, row, moments, work);
    const Line in{op.prologue, rows, row, moments};
    for (int64_t m = 0; m < op.results; ++m) {
      sums[m] = 0;
      results[m] = op.function == Reduction::kMax ? -INFINITY : INFINITY;
    }
    for (int64_t p = 0; p < op.prologue.points; ++p) {
      read_points(in, p, 1, point, 0);
      const int64_t first = op.point_result.at(p);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t m = first + op.inner_result.at(i);
        if (sum) {
          sums[m] += static_cast<double>(point[i]);
        } else {
          results[m] = op.function == Reduction::kMax ? larger_of(results[m], point[i]) : smaller_of(results[m], point[i]);
        }
      }
    }
    const double size = op.function == Reduction::kMean ? static_cast<double>(op.size) : 1.0;
    for (int64_t m = 0; m < op.results && sum; ++m) results[m] = static_cast<float>(sums[m] / size);
    write_points(Line{op.epilogue, rows, row, nullptr}, 0, op.epilogue.points, results, op.epilogue.inner);
  }
}

}  // namespace
}  // namespace df::network
