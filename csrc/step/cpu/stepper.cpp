#include "step/cpu/stepper.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "threads/pool.h"

namespace df {
namespace {

int64_t bytes_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

template <class T>
T* at(T* base, int64_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const unsigned char, unsigned char>;
  return base == nullptr ? nullptr : reinterpret_cast<T*>(reinterpret_cast<Byte*>(base) + bytes);
}

}  // namespace

Stepper::Stepper(const Kernel& kernel, const Row* rows, int64_t row_count, int64_t samples, int64_t elements,
                 uint64_t element_offset, DType state, DType output, const Buffers& b, const uint64_t* seeds,
                 const uint32_t* indices)
    : kernel_(kernel),
      rows_(prepare_rows(rows, row_count, b)),
      samples_(static_cast<size_t>(samples)),
      bad_(static_cast<size_t>(samples)),
      outputs_(static_cast<const unsigned char*>(b.outputs[0])),
      output_count_(b.output_count),
      output_bytes_(b.output_stride * bytes_of(output)),
      variance_bytes_(b.variance_offset < 0 ? -1 : b.variance_offset * bytes_of(output)),
      elements_(elements),
      element_offset_(element_offset),
      state_(state),
      output_(output) {
  for (int64_t i = 0; i < samples; ++i) {
    Sample& s = samples_[static_cast<size_t>(i)];
    s = Sample{};
    s.x = at(b.x, i * elements * bytes_of(state));
    s.out = at(b.out, i * elements * bytes_of(state));
    for (int j = 0; j < kMaxOutputs; ++j) s.m[j] = at(b.outputs[j], i * b.output_stride * bytes_of(output));
    if (b.variance_offset >= 0) s.v = at(s.m[0], b.variance_offset * bytes_of(output));
    for (int k = 0; k < std::min(b.register_count, kMaxRegisters); ++k) s.h[k] = at(b.registers, (k * samples + i) * elements * 4);
    s.y = at(b.y, i * elements * 4);
    s.mask = at(b.mask, i * elements * 4);
  }
  seed(seeds, indices);
}

void Stepper::seed(const uint64_t* seeds, const uint32_t* indices) {
  for (size_t i = 0; i < samples_.size(); ++i) {
    samples_[i].seed = seeds[i];
    samples_[i].index = indices[i];
  }
}

void Stepper::check_row(int64_t row) const {
  if (row >= rows()) throw std::out_of_range("row " + std::to_string(row) + " of " + std::to_string(rows()));
}

std::vector<int64_t> Stepper::bad_samples() const {
  std::vector<int64_t> bad;
  for (int64_t i = 0; i < samples(); ++i)
    if (bad_[static_cast<size_t>(i)] != 0) bad.push_back(i);
  return bad;
}

int64_t Stepper::run(int64_t row, uint32_t noise_row) {
  check_row(row);
  if (row < 0) throw std::out_of_range("row must not be negative");
  for (Sample& s : samples_) {
    s.row = &rows_[static_cast<size_t>(row)];
    s.noise_row = noise_row;
  }
  std::fill(bad_.begin(), bad_.end(), uint8_t{0});
  run_step(kernel_, {samples_.data(), samples(), elements_, element_offset_, state_, output_, bad_.data()});
  const auto first = std::find(bad_.begin(), bad_.end(), uint8_t{1});
  return first == bad_.end() ? -1 : first - bad_.begin();
}

void Stepper::place_outputs(Sample& sample, const int64_t* at) const {
  for (int j = 0; j < kMaxOutputs; ++j) {
    if (at[j] >= output_count_)
      throw std::invalid_argument("there is no network output number " + std::to_string(at[j]) + "; there are " +
                                  std::to_string(output_count_));
    if (at[j] < 0 && reads_output(*sample.row, j))
      throw std::invalid_argument("a row needs network output " + std::to_string(j) + ", which was not evaluated");
    sample.m[j] = at[j] < 0 ? nullptr : outputs_ + at[j] * output_bytes_;
  }
  sample.v = variance_bytes_ < 0 || at[0] < 0 ? nullptr : outputs_ + at[0] * output_bytes_ + variance_bytes_;
  if ((sample.row->terms & kLearnedS) && sample.v == nullptr)
    throw std::invalid_argument("a row needs the network's variance channel, which was not evaluated");
}

int64_t Stepper::run_each(const int64_t* rows, const uint32_t* noise_rows, const int64_t* outputs) {
  for (int64_t i = 0; i < samples(); ++i) check_row(rows[i]);
  active_.clear();
  active_index_.clear();
  for (int64_t i = 0; i < samples(); ++i) {
    if (rows[i] < 0) continue;
    active_.push_back(samples_[static_cast<size_t>(i)]);
    active_.back().row = &rows_[static_cast<size_t>(rows[i])];
    active_.back().noise_row = noise_rows[i];
    if (outputs != nullptr) place_outputs(active_.back(), outputs + i * kMaxOutputs);
    active_index_.push_back(i);
  }
  std::fill(bad_.begin(), bad_.end(), uint8_t{0});
  if (active_.empty()) return -1;
  bad_active_.assign(active_.size(), 0);
  run_step(kernel_,
           {active_.data(), static_cast<int64_t>(active_.size()), elements_, element_offset_, state_, output_, bad_active_.data()});
  int64_t first = -1;
  for (size_t i = active_.size(); i-- > 0;) {
    if (bad_active_[i] == 0) continue;
    first = active_index_[i];
    bad_[static_cast<size_t>(first)] = 1;
  }
  return first;
}

}  // namespace df
