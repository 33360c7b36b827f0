// A Stepper is the step bound to the buffers of one sampling run: created once, then called once per row.

#pragma once

#include <cstdint>
#include <vector>

#include "step/cpu/kernels.h"
#include "step/prepared_rows.h"

namespace df {

class Stepper {
 public:
  // Throws std::invalid_argument if the rows do not fit the buffers (prepare_rows).
  Stepper(const Kernel& kernel, const Row* rows, int64_t row_count, int64_t samples, int64_t elements, uint64_t element_offset,
          DType state, DType output, const Buffers& buffers, const uint64_t* seeds, const uint32_t* indices);

  // Sets the noise keys: a seed and an index for each sample.
  void seed(const uint64_t* seeds, const uint32_t* indices);

  // Applies row `row` to every sample, with the noise of row number `noise_row`. Returns the first sample whose model output
  // holds NaN or Inf, or -1. Throws std::out_of_range if there is no such row.
  int64_t run(int64_t row, uint32_t noise_row);

  // Applies row rows[i] to sample i, with the noise of row number noise_rows[i]; a negative row skips the sample.
  // With outputs, network output j of sample i is entry outputs[i * kMaxOutputs + j] of outputs[0]'s memory, and a negative
  // entry is absent: the evaluations of a batch may be in any order.
  // Throws std::out_of_range if there is no such row, and std::invalid_argument if a row needs an absent output or an entry is
  // beyond the memory.
  int64_t run_each(const int64_t* rows, const uint32_t* noise_rows, const int64_t* outputs = nullptr);

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t samples() const { return static_cast<int64_t>(samples_.size()); }
  // The samples whose model output held NaN or Inf in the last run, ascending.
  std::vector<int64_t> bad_samples() const;

 private:
  void check_row(int64_t row) const;
  void place_outputs(Sample& sample, const int64_t* at) const;

  const Kernel& kernel_;
  std::vector<PreparedRow> rows_;
  std::vector<Sample> samples_, active_;
  std::vector<int64_t> active_index_;
  std::vector<uint8_t> bad_, bad_active_;
  const unsigned char* outputs_;
  int64_t output_count_, output_bytes_;  // number of entries in outputs_; bytes per entry
  int64_t variance_bytes_;               // from the start of an entry to its variance channel, or -1
  int64_t elements_;
  uint64_t element_offset_;
  DType state_, output_;
};

}  // namespace df
