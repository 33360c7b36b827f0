// A Stepper is the step bound to the buffers of one sampling run: made once, then one call per row.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "step/kernels.h"
#include "step/table.h"

namespace df {

class Stepper {
 public:
  // Throws std::invalid_argument where the rows do not fit the buffers (ready_table).
  Stepper(const Kernel& kernel, const Row* rows, int64_t row_count, int64_t samples, int64_t elements, uint64_t element_offset,
          DType state, DType output, const Buffers& buffers, const uint64_t* seeds, const uint32_t* indices);

  // Other keys of the noise from here on: a seed and an index for each sample.
  void seed(const uint64_t* seeds, const uint32_t* indices);

  // Applies row `row` to every sample, with noise of row number `noise_row`. Returns the first sample whose model output
  // holds NaN or Inf, or -1.
  int64_t run(int64_t row, uint32_t noise_row);

  // Applies row rows[i] to sample i, with noise of row number noise_rows[i]; a negative row leaves the sample alone.
  // Where outputs is not null, network output j of sample i is number outputs[i * kMaxOutputs + j] of outputs[0]'s memory
  // (a negative one is not there): samples of one batch need not have their evaluations side by side.
  // Throws std::invalid_argument where a row needs an output that is not there, or a number is beyond the memory.
  int64_t run_each(const int64_t* rows, const uint32_t* noise_rows, const int64_t* outputs = nullptr);

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t samples() const { return static_cast<int64_t>(samples_.size()); }
  bool bad(int64_t sample) const { return bad_[static_cast<std::size_t>(sample)] != 0; }

 private:
  void place_outputs(Sample& sample, const int64_t* at) const;

  const Kernel& kernel_;
  std::vector<ReadyRow> rows_;
  std::vector<Sample> samples_, active_;
  std::vector<int64_t> active_index_;
  std::vector<uint8_t> bad_, bad_active_;
  const unsigned char* outputs_;
  int64_t output_count_, output_bytes_;  // samples in outputs_; bytes of one
  int64_t variance_bytes_;               // from a sample's output to its variance, or -1
  int64_t elements_;
  uint64_t element_offset_;
  DType state_, output_;
};

}  // namespace df
