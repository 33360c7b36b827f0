// The coefficients that a reduction sets, from the sample's totals: float64 arithmetic shared by every implementation.
// (The totals are float64 sums; each implementation sums in its own order.)

#pragma once

#include <cmath>
#include <cstdint>

#include "simd/host_device.h"
#include "step/step.h"

namespace df {

// The fractional position of the quantile among n sorted values.
DF_HOST_DEVICE double quantile_position(const Row& row, int64_t n) {
  return static_cast<double>(row.reduce_0) * static_cast<double>(n - 1);
}

// Sets the bounds from the threshold, clipped to [1, max]. A sample that is not finite gets 1, and the step reports it.
DF_HOST_DEVICE void set_threshold(Row& row, double quantile) {
  const double largest = static_cast<double>(row.reduce_1);
  const double held = largest < quantile ? largest : quantile;
  const double threshold = 1.0 < held ? held : 1.0;
  row.hi = static_cast<float>(threshold);
  row.lo = -row.hi;
  row.r = static_cast<float>(1.0 / threshold);
}

// The variance of n values. `sum` and `squares` are the sums of the differences to one of the values, and of their squares. The
// variance of a constant is exactly 0. Cancellation is bounded: that one value is at most sqrt(n) standard deviations from the
// mean, so the relative error is about n * 2^-53. NaN if a value is not finite.
DF_HOST_DEVICE double variance_of(double sum, double squares, int64_t n) {
  const double count = static_cast<double>(n), variance = (squares - sum * sum / count) / count;
  return variance < 0.0 ? 0.0 : variance;
}

// Rescales the guidance weights. `from` and `to` are the variances of m and of m_0. A constant m keeps its weights. If m_0 is not
// finite, the weights become NaN and the step reports the sample.
DF_HOST_DEVICE void rescale_guidance(Row& row, double from, double to) {
  if (!(from > 0.0) && to == to) return;
  const double phi = static_cast<double>(row.reduce_0), factor = phi * sqrt(to / from) + (1.0 - phi);
  for (float& g : row.g)
    if (g != 0.0f) g = static_cast<float>(static_cast<double>(g) * factor);
}

// Sets the step size of a Langevin row from the sums of squares of m and z. `given`: the register that holds z, or -1 if the row
// draws z.
DF_HOST_DEVICE void set_langevin(Row& row, double squares_m, double squares_z, int32_t given) {
  const double snr = static_cast<double>(row.reduce_0), kappa = static_cast<double>(row.reduce_1);
  const double score = kappa * kappa * squares_m;
  const double size = score > 0.0 ? 2.0 * snr * snr * squares_z / score : 0.0;
  row.b = static_cast<float>(size * kappa);
  (given < 0 ? row.s : row.c[given]) = static_cast<float>(sqrt(2.0 * size));
}

// The register that holds z in a Langevin row with given noise, or -1.
DF_HOST_DEVICE int32_t given_noise(const PreparedRow& row) {
  const bool given = row.row.reduce == static_cast<int32_t>(Reduce::kLangevinGiven) && row.history_count > 0;
  return given ? row.history[row.history_count - 1] : -1;
}

}  // namespace df
