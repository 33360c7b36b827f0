// The forward process (step/forward.h), compiled once per instruction set.

#include "step/forward.h"

#include <algorithm>

#include "random/noise.h"
#include "simd/simd.h"
#include "step/step.h"

namespace df {
namespace {

// a * x + b * z; a term whose coefficient is 0 is skipped.
DF_INLINE F combined(float a, F x, float b, F z) {
  if (a == 0.0f) return b == 0.0f ? Vector::set(0.0f) : Vector::mul_f(Vector::set(b), z);
  const F first = Vector::mul_f(Vector::set(a), x);
  return b == 0.0f ? first : Vector::fma(Vector::set(b), z, first);
}

struct Coefficients {
  float alpha, sigma, target_x0, target_z;
};

template <bool kGiven, bool kTarget>
void loop(const Forward& what, int64_t sample, int64_t begin, int64_t end) {
  const int64_t base = sample * what.elements;
  const Coefficients c{what.alpha[sample], what.sigma[sample], kTarget ? what.target_x0[sample] : 0.0f,
                       kTarget ? what.target_z[sample] : 0.0f};
  const Noise noise(what.seed, what.row, kGiven ? 0u : what.index[sample]);
  const auto group = [&]<bool kWhole>(int64_t at) __attribute__((always_inline)) {
    F z[kVectors];
    if constexpr (!kGiven) normals_of_group(z, noise, static_cast<uint64_t>(at), kStreamTraining);
    for (int j = 0; j < kVectors; ++j) {
      const int64_t i = at + j * kWidth;
      const int last = kWhole ? kWidth : static_cast<int>(std::clamp<int64_t>(end - i, 0, kWidth));
      if (last == 0) break;
      const auto get = [&](const float* from) {
        return kWhole ? load_as<DType::kFloat32>(from, base + i) : load_part<DType::kFloat32>(from, base + i, 0, last);
      };
      const auto put = [&](float* to, F value) {
        if (kWhole) {
          store_as<DType::kFloat32>(to, base + i, value);
        } else {
          store_part<DType::kFloat32>(to, base + i, 0, last, value);
        }
      };
      const F x = get(what.x0);
      if constexpr (kGiven) z[j] = get(what.noise);
      put(what.x_t, combined(c.alpha, x, c.sigma, z[j]));
      if constexpr (kTarget) put(what.target, combined(c.target_x0, x, c.target_z, z[j]));
    }
  };
  int64_t at = begin;  // a multiple of four
  for (; at + kGroup <= end; at += kGroup) group.template operator()<true>(at);
  if (at < end) group.template operator()<false>(at);
}

}  // namespace

void DF_PASTE(forward_, DF_ISA)(const Forward& what, int64_t sample, int64_t begin, int64_t end);
void DF_PASTE(forward_, DF_ISA)(const Forward& what, int64_t sample, int64_t begin, int64_t end) {
  const bool target = what.target != nullptr;
  if (what.noise != nullptr)
    return target ? loop<true, true>(what, sample, begin, end) : loop<true, false>(what, sample, begin, end);
  return target ? loop<false, true>(what, sample, begin, end) : loop<false, false>(what, sample, begin, end);
}

}  // namespace df
