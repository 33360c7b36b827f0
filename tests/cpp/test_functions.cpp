// The functions of csrc/network/functions.h: their error against long double, special values, and equal bits on every instruction
// set.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "network/operation.h"

namespace {

using df::network::Kernels;
using df::network::Unary;
using Real = long double;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> out{df::network::find_kernels("scalar_plain")};
  for (const df::Kernel* kernel : runnable_kernels()) out.push_back(df::network::find_kernels(kernel->name));
  return out;
}

// Floats of all magnitudes and signs, and dense ones around zero.
std::vector<float> arguments() {
  std::vector<float> out{0.0f, -0.0f, kInf, -kInf, kNan, 1.0f, -1.0f};
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 30'011)
    out.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (int i = -40'000; i <= 40'000; ++i) out.push_back(static_cast<float>(i) * 0.0025f);
  for (int i = 0; i < 20'000; ++i) out.push_back(static_cast<float>(i) * 51.0f);  // times and frequencies
  return out;
}

std::vector<float> apply(const Kernels& kernels, Unary function, float parameter, std::vector<float> values) {
  kernels.apply(function, parameter, values.data(), static_cast<int64_t>(values.size()));
  return values;
}

// The error in units of the last place of the float next to the exact value.
Real error_in_ulp(float got, Real exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : kInf;
  if (got == static_cast<float>(exact)) return 0;  // infinities too
  if (std::isnan(got) || std::isinf(got) || std::isinf(exact)) return kInf;
  int exponent;
  std::frexp(exact, &exponent);
  return std::fabs(static_cast<Real>(got) - exact) / std::ldexp(Real{1}, std::max(exponent - 24, -149));
}

Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real softplus(Real x) { return std::max(x, Real{0}) + std::log1p(std::exp(-std::fabs(x))); }

struct Bound {
  const char* name;
  Unary function;
  Real (*exact)(Real);
  double ulp;
};

const Bound kBounds[] = {
    {"exp", Unary::kExp, [](Real x) { return std::exp(x); }, 1.1},
    {"log", Unary::kLog, [](Real x) { return x < 0 ? kNan : std::log(x); }, 0.9},
    {"tanh", Unary::kTanh, [](Real x) { return std::tanh(x); }, 1.8},
    {"erf", Unary::kErf, [](Real x) { return std::erf(x); }, 1.3},
    {"sigmoid", Unary::kSigmoid, sigmoid, 2.6},
    {"silu", Unary::kSilu, [](Real x) { return x * sigmoid(x); }, 3.1},
    {"softplus", Unary::kSoftplus, softplus, 1.8},
    {"mish", Unary::kMish, [](Real x) { return x * std::tanh(softplus(x)); }, 3.4},
    {"sin", Unary::kSin, [](Real x) { return std::sin(x); }, 1.5},
    {"cos", Unary::kCos, [](Real x) { return std::cos(x); }, 1.5},
    {"elu", Unary::kElu, [](Real x) { return x > 0 ? x : std::expm1(x); }, 4.0},
    {"rsqrt", Unary::kRsqrt, [](Real x) { return x < 0 ? kNan : 1 / std::sqrt(x); }, 1.5},
};

}  // namespace

TEST(functions_error) {
  const std::vector<float> x = arguments();
  for (const Bound& bound : kBounds) {
    const std::vector<float> y = apply(*df::network::find_kernels("scalar"), bound.function, 1.0f, x);
    Real worst = 0;
    float at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const Real exact = bound.exact(static_cast<Real>(x[i]));
      if ((bound.function == Unary::kSilu || bound.function == Unary::kMish) && x[i] < -87 && x[i] > -kInf) {  // x times a denormal
        CHECK(std::fabs(static_cast<Real>(y[i]) - exact) <= 0x1p-141L);
        continue;
      }
      const Real error = error_in_ulp(y[i], exact);
      if (error > worst) worst = error, at = x[i];
    }
    CHECK_WITH(worst <= static_cast<Real>(bound.ulp),
               std::string(" ") + bound.name + ": " + std::to_string(static_cast<double>(worst)) + " at " + std::to_string(at));
  }
}

TEST(functions_gelu) {
  const std::vector<float> x = arguments();
  const auto exact = [](Real v) { return v / 2 * (1 + std::erf(v / std::sqrt(Real{2}))); };
  const auto by_tanh = [](Real v) {
    return v / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(Real{-1})) * (v + 0.044715L * v * v * v)));
  };
  for (const bool tanh : {false, true}) {
    const std::vector<float> y = apply(*df::network::find_kernels("scalar"), tanh ? Unary::kGeluTanh : Unary::kGelu, 0, x);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (!(std::fabs(x[i]) < 1e18f)) continue;
      const Real right = tanh ? by_tanh(x[i]) : exact(x[i]);
      const Real unit = std::max<Real>(std::fabs(right), std::fabs(static_cast<Real>(x[i])) * 0x1p-4L) * 0x1p-23L + 0x1p-149L;
      worst = std::max(worst, static_cast<double>(std::fabs(y[i] - right) / unit));
    }
    CHECK_WITH(worst <= 5, std::string(tanh ? " tanh " : " ") + std::to_string(worst));
  }
}

// Any NaN will do: its payload may differ.
TEST(functions_same_bits) {
  const std::vector<float> x = arguments();
  for (int f = 0; f < static_cast<int>(Unary::kCount); ++f) {
    const std::vector<float> expected = apply(*df::network::find_kernels("scalar"), static_cast<Unary>(f), 0.3f, x);
    for (const Kernels* kernels : all_kernels()) {
      const std::vector<float> got = apply(*kernels, static_cast<Unary>(f), 0.3f, x);
      size_t different = 0;
      for (size_t i = 0; i < x.size(); ++i)
        different += std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i]) &&
                     !(std::isnan(got[i]) && std::isnan(expected[i]));
      CHECK_WITH(different == 0,
                 std::string(" ") + kernels->name + ", function " + std::to_string(f) + ": " + std::to_string(different));
    }
    CHECK_WITH(std::isnan(expected[4]), std::string(" NaN of function ") + std::to_string(f));
  }
}
