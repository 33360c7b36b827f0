// What a reduction's totals make of a row's coefficients: float64 arithmetic on a few numbers, the same for every
// implementation. (The totals themselves are float64 sums, whose order is each implementation's own.)

#pragma once

#include <cmath>
#include <cstdint>

#include "random/host_device.h"
#include "step/step.h"

namespace df {

// Where the quantile of n sorted values lies: between value floor(position) and the next.
DF_BOTH double quantile_position(const Row& row, int64_t n) {
  return static_cast<double>(row.reduce_0) * static_cast<double>(n - 1);
}

// The threshold, held to [1, max]; 1 is also what a sample gets that is not finite (the step reports it).
DF_BOTH void set_threshold(Row& row, double quantile) {
  const double largest = static_cast<double>(row.reduce_1);
  const double held = largest < quantile ? largest : quantile;
  const double threshold = 1.0 < held ? held : 1.0;
  row.hi = static_cast<float>(threshold);
  row.lo = -row.hi;
  row.r = static_cast<float>(1.0 / threshold);
}

// The variance of n values, from the sums of their differences to one of them and of the squares of these. A constant has exactly
// 0. Little is lost by subtraction: the one value is at most sqrt(n) deviations from the mean, so the relative error is at most
// some n * 2^-53. NaN where a value is not finite.
DF_BOTH double variance_of(double sum, double squares, int64_t n) {
  const double count = static_cast<double>(n), variance = (squares - sum * sum / count) / count;
  return variance < 0.0 ? 0.0 : variance;
}

// From the variances of m and of m_0. A constant output has no scale to restore. Where m_0 is not finite the weights become NaN,
// and the step reports the sample.
DF_BOTH void rescale_guidance(Row& row, double from, double to) {
  if (!(from > 0.0) && to == to) return;
  const double phi = static_cast<double>(row.reduce_0), factor = phi * sqrt(to / from) + (1.0 - phi);
  for (float& g : row.g)
    if (g != 0.0f) g = static_cast<float>(static_cast<double>(g) * factor);
}

// From the sums of the squares of m and of z. `given` is the register that holds z, or -1 where the row makes it.
DF_BOTH void set_langevin(Row& row, double squares_m, double squares_z, int32_t given) {
  const double snr = static_cast<double>(row.reduce_0), kappa = static_cast<double>(row.reduce_1);
  const double score = kappa * kappa * squares_m;
  const double size = score > 0.0 ? 2.0 * snr * snr * squares_z / score : 0.0;
  row.b = static_cast<float>(size * kappa);
  (given < 0 ? row.s : row.c[given]) = static_cast<float>(sqrt(2.0 * size));
}

// The register that holds the z of a Langevin row, or -1.
DF_BOTH int32_t given_noise(const ReadyRow& row) {
  const bool given = row.row.reduce == static_cast<int32_t>(Reduce::kLangevinGiven) && row.history_count > 0;
  return given ? row.history[row.history_count - 1] : -1;
}

}  // namespace df
