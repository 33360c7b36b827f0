#include "step/cpu/single_row.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace df {
namespace {

bool simple(const PreparedRow& row) {
  constexpr uint32_t more = kG1 | kG2 | kHistory | kWrite | kLearnedS;
  return row.row.reduce == static_cast<int32_t>(Reduce::kNone) && (row.terms & kG0) != 0 && (row.terms & more) == 0;
}

}  // namespace

SingleRow::SingleRow(const Kernel& kernel, const Row& row) : kernel_(kernel), row_(prepare_row(row)), simple_(simple(row_)) {}

int64_t SingleRow::run(const float* x, const float* m, float* out, int64_t samples, int64_t elements, uint64_t seed, uint32_t index,
                       uint32_t noise_row) const {
  std::vector<Sample> call(static_cast<size_t>(samples));
  std::vector<uint8_t> bad(static_cast<size_t>(samples));
  for (int64_t i = 0; i < samples; ++i) {
    Sample& s = call[static_cast<size_t>(i)];
    s.row = &row_;
    s.x = x + i * elements;
    s.m[0] = m + i * elements;
    s.out = out + i * elements;
    s.seed = seed;
    s.index = index + static_cast<uint32_t>(i);
    s.noise_row = noise_row;
  }
  run_step(kernel_, {call.data(), samples, elements, 0, DType::kFloat32, DType::kFloat32, bad.data()});
  const auto first = std::find(bad.begin(), bad.end(), uint8_t{1});
  return first == bad.end() ? -1 : first - bad.begin();
}

}  // namespace df
