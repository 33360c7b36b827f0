// The prepared operations: what prepare_<kind> (<kind>.cpp) leaves for run_<kind> (<kind>_run.h).
#pragma once

#include "network/operation.h"
#include "network/products/convolution.h"

namespace df::network {

struct PreparedMap : Prepared {
  Stages prologue;  // reads the input
  Access output;
  int64_t scratch(int64_t rows) const override;
};

struct PreparedConvolution : Prepared {
  ConvolutionShape shape;
  ConvolutionAlgorithm algorithm;
  const float* packed;      // in the network's arena
  std::vector<float> bias;  // empty for none

  // A transposed convolution is a convolution of the input with stride - 1 zeros between its pixels.
  int64_t input_height, input_width, stretch_y = 1, stretch_x = 1, crop_y = 0, crop_x = 0;
  bool read_in_place;  // the input as it is, else through read_points
  int64_t read_row, read_pixel;
  Stages prologue;

  struct Fast {
    bool multiply;
    int64_t buffer, offset, row, pixel;
  };
  std::vector<Fast> fast;  // the first stages of the epilogue, where the product does them
  bool write_in_place;     // else the result goes to scratch first
  int64_t write_row, write_pixel;
  Stages epilogue;  // the other stages

  int64_t scratch(int64_t rows) const override;
  int64_t weights() const override { return packed_convolution_size(shape, algorithm); }
  void load(const Context& context, const Operation& operation) override;
};

// A matrix per lead index: element (l, r, c) at offset + lead.at(l) + rows.at(r) + columns.at(c).
struct Matrices {
  int64_t buffer = 0, offset = 0;
  Steps lead, rows, columns;
  bool contiguous() const { return columns.table.empty() && (columns.stride == 1 || columns.count == 1); }
};
Matrices matrices(const View& view);

struct PreparedAttention : Prepared {
  Matrices q, k, v, mask;
  bool masked, causal;
  float scale, softcap;
  int64_t lead, queries, keys, depth, columns;
  Stages epilogue;
  int64_t scratch(int64_t rows) const override;
};

struct PreparedProduct : Prepared {
  Matrices a, b;
  int64_t lead, rows, depth, columns;
  Stages epilogue;
  int64_t scratch(int64_t rows) const override;
};

struct PreparedSoftmax : Prepared {
  Stages prologue, epilogue;
  int64_t scratch(int64_t rows) const override;
};

struct PreparedReduce : Prepared {
  Reduction function;
  Stages prologue, epilogue;
  int64_t results, size;             // how many, and of how many elements each
  Steps point_result, inner_result;  // element (p, i) goes to result point_result.at(p) + inner_result.at(i)
  int64_t scratch(int64_t rows) const override;
};

struct PreparedPool : Prepared {
  Reduction function;
  bool count_padding;
  // The input as points of channels, and for each output point its taps: input points, in order.
  std::vector<int64_t> tap_begin;  // one more than output points
  std::vector<int32_t> taps;
  std::vector<float> divisor;  // of a mean, per output point
  Stages prologue, epilogue;
  int64_t scratch(int64_t rows) const override;
};

struct PreparedResize : Prepared {
  int inner;
  Access first, second;       // of the output's shape
  std::vector<float> weight;  // by output element along the axis
  Steps point_weight, inner_weight;
  Stages epilogue;
  int64_t scratch(int64_t rows) const override;
  void load(const Context& context, const Operation& operation) override;
};

struct PreparedGather : Prepared {
  Access indices;  // its points are all indices
  int64_t table_buffer, table_offset;
  Steps entries, rest;
  Stages epilogue;
  int64_t scratch(int64_t rows) const override;
};

// The dimension along which vectors lie best: contiguous in most of the views, which have the same shape, and long.
int best_inner(const std::vector<const View*>& views);

// All views of an operation that has the shape of its output: input, output and operands.
std::vector<const View*> views_of(const Operation& operation, const std::vector<Stage>& stages);

inline int64_t stages_scratch(const Stages& stages) { return round_up(stages.moments) + round_up(stages.work); }

}  // namespace df::network
