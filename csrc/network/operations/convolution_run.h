// Convolution and Linear: the products with what reads their input and finishes their output.
#pragma once

#include "network/operations/prepared.h"
#include "network/products/products.h"
#include "network/stages.h"
#include "threads/pool.h"

namespace df::network {

extern const ProductKernels DF_PASTE(products_, DF_ISA);

namespace {

// Multiply-adds of the direct convolution for which another thread is worth waking.
constexpr double kWorkPerThread = 2e6;

// What the callbacks of one call read.
struct ConvolutionCall {
  const PreparedConvolution& op;
  const Rows& rows;
  const float* moments;  // of all rows
  float* const* results;
  int64_t result_row, result_pixel;
};

// Rows of the input after the prologue, with the zeros of a transposed convolution between them.
inline void write_input(void* context, int64_t sample, int64_t y_begin, int64_t y_end, float* destination, int64_t row,
                        int64_t pixel) {
  const auto& call = *static_cast<const ConvolutionCall*>(context);
  const PreparedConvolution& op = call.op;
  const Line line{op.prologue, call.rows, sample, call.moments + sample * round_up(op.prologue.moments)};
  const bool dense = op.stretch_x == 1 && op.crop_x == 0;
  for (int64_t y = y_begin; y < y_end; ++y, destination += row) {
    const int64_t from = y + op.crop_y, source = from / op.stretch_y;
    if (from % op.stretch_y == 0 && dense) {
      read_points(line, source * op.input_width, op.input_width, destination, pixel);
      continue;
    }
    for (int64_t x = 0; x < op.shape.width; ++x) {
      const int64_t at = x + op.crop_x;
      if (from % op.stretch_y == 0 && at % op.stretch_x == 0) {
        read_points(line, source * op.input_width + at / op.stretch_x, 1, destination + x * pixel, 0);
      } else {
        std::memset(destination + x * pixel, 0, static_cast<size_t>(op.shape.channels) * sizeof(float));
      }
    }
  }
}

inline void finish_output(void* context, int64_t sample, int64_t y_begin, int64_t y_end) {
  const auto& call = *static_cast<const ConvolutionCall*>(context);
  const int64_t width = call.op.shape.out_width;
  const Line line{call.op.epilogue, call.rows, sample, nullptr};
  for (int64_t y = y_begin; y < y_end; ++y)
    write_points(line, y * width, width, call.results[sample] + y * call.result_row, call.result_pixel);
}

void run_convolution(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedConvolution&>(prepared);
  const ConvolutionShape& s = op.shape;
  const float* inputs[kMostRows];
  float* results[kMostRows];
  const float* operands[kMaxStages][kMostRows];
  float *moments = scratch, *work = moments + rows.count * round_up(op.prologue.moments),
        *result = work + round_up(op.prologue.work);
  const int64_t size = s.out_height * s.out_width * s.outputs;
  float* product = result + (op.write_in_place ? 0 : round_up(rows.count * size));
  for (int64_t row = 0; row < rows.count; ++row) {
    compute_moments(op.prologue, rows, row, moments + row * round_up(op.prologue.moments), work);
    inputs[row] = rows.read(op.prologue.view.buffer, row) + op.prologue.view.offset;
    const Access& output = op.epilogue.view;
    results[row] = op.write_in_place ? rows.write(output.buffer, row) + output.offset : result + row * size;
  }
  ConvolutionCall call{op,
                       rows,
                       moments,
                       results,
                       op.write_in_place ? op.write_row : s.out_width * s.outputs,
                       op.write_in_place ? op.write_pixel : s.outputs};
  ImageSource source;
  source.pixels = {inputs, op.read_row, op.read_pixel};
  source.context = &call;
  if (!op.read_in_place) source.write = write_input;
  ImageTarget target;
  target.pixels = {results, call.result_row, call.result_pixel};
  target.bias = op.bias.empty() ? nullptr : op.bias.data();
  target.context = &call;
  if (!op.write_in_place || !op.epilogue.list.empty()) target.finish = finish_output;
  for (const PreparedConvolution::Fast& fast : op.fast) {
    const float** pointers = operands[target.stage_count];
    for (int64_t row = 0; row < rows.count; ++row) pointers[row] = rows.read(fast.buffer, row) + fast.offset;
    target.stages[target.stage_count++] = {fast.multiply, {pointers, fast.row, fast.pixel}};
  }
  const double products = static_cast<double>(size) * static_cast<double>(s.channels / s.groups * s.kernel_height * s.kernel_width);
  const auto worth = static_cast<int64_t>(products / kWorkPerThread);
  const int64_t threads = rows.threads < worth ? rows.threads : worth;
  struct Parts {
    const PreparedConvolution& op;
    const ImageSource& source;
    const ImageTarget& target;
    const Rows& rows;
    float* scratch;
    int64_t count;
  } parts{op, source, target, rows, product, rows.count == 1 && threads > 1 ? threads : 1};
  run_parts(
      parts.count, static_cast<int>(parts.count),
      [](void* context, int64_t part) {
        const Parts& p = *static_cast<const Parts*>(context);
        float* own = part == 0 ? p.scratch : p.rows.helpers + (part - 1) * p.rows.helper_size;
        DF_PASTE(products_, DF_ISA)
            .convolution(p.op.shape, p.op.algorithm, p.op.packed, p.source, p.target, p.rows.count, {part, p.count},
                         kDefaultCacheBytes, own);
      },
      &parts);
}

}  // namespace
}  // namespace df::network
