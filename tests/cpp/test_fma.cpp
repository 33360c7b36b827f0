// The fused multiply-add of simd/fma.h against that of the C library.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "simd/fma.h"

namespace {

// Whether both have the same bits, or both are NaN.
bool is_right(float a, float b, float c) {
  const float got = df::exact_fma(a, b, c), right = std::fma(a, b, c);
  return std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(right) || (std::isnan(got) && std::isnan(right));
}

std::string text(float a, float b, float c) { return std::to_string(a) + " " + std::to_string(b) + " " + std::to_string(c); }

void check(float a, float b, float c) { CHECK_WITH(is_right(a, b, c), text(a, b, c)); }

float any_float(Random& random) { return std::bit_cast<float>(static_cast<uint32_t>(random.bits() >> 32)); }

// One of the floats next to x.
float near(Random& random, float x) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + static_cast<uint32_t>(random.below(5)) - 2);
}

}  // namespace

TEST(fma_special_values) {
  std::vector<float> values;
  for (const float x : {0.0f, 1.0f, 1.5f, 0x1.000002p0f, 0x1.fffffep0f, 0x1p-126f, 0x1.fffffcp-127f, 0x1p-149f, 0x1p-75f, 0x1p-74f,
                        0x1p63f, 0x1p64f, 0x1.fffffep127f, std::numeric_limits<float>::infinity()}) {
    values.push_back(x);
    values.push_back(-x);
  }
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  for (const float a : values)
    for (const float b : values)
      for (const float c : values) check(a, b, c);
}

TEST(fma_random_values) {
  Random random(1);
  for (int i = 0; i < 2'000'000; ++i) check(any_float(random), any_float(random), any_float(random));
}

// The product and the addend cancel to a few bits or to nothing.
TEST(fma_cancellation) {
  Random random(2);
  for (int i = 0; i < 1'000'000; ++i) {
    const float a = any_float(random), b = random.uniform();
    check(a, b, near(random, -(a * b)));
  }
}

// The exact result is at the middle of two floats, or so near that a sum in double does not see on which side: a sum that is
// rounded twice to nearest is wrong here.
TEST(fma_near_ties) {
  Random random(3);
  int twice = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    // (1 + i 2^-11)(1 + j 2^-13) has 24 places after the point; an odd last one is the middle of two floats.
    const float a = 1.0f + static_cast<float>(2 * random.below(1 << 10) + 1) * 0x1p-11f;
    const float b = 1.0f + static_cast<float>(2 * random.below(1 << 12) + 1) * 0x1p-13f;
    const int exponent = random.below(250) - 125;
    const float c = std::ldexp(random.coin() ? 1.0f : -1.0f, exponent - 20 - random.below(60));
    const float scaled = std::ldexp(a, exponent);
    check(scaled, b, c);
    check(-scaled, b, c);
    check(scaled, b, 0.0f);
    const auto rounded_twice = static_cast<float>(static_cast<double>(scaled) * b + c);
    twice += rounded_twice != std::fma(scaled, b, c);
  }
  CHECK(twice > 10'000);
}

// Results below the smallest normal float, where the last place is fixed.
TEST(fma_denormal_results) {
  Random random(4);
  for (int i = 0; i < 1'000'000; ++i) {
    const float a = std::ldexp(random.uniform(), -70 - random.below(10)), b = std::ldexp(random.uniform(), -56 - random.below(24));
    check(a, b, std::ldexp(random.uniform(), -126 - random.below(24)));
    check(a, b, near(random, -(a * b)));
  }
}
