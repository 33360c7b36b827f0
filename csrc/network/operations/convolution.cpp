#include <algorithm>
#include <stdexcept>
#include <string>

#include "network/operations/prepared.h"
#include "network/products/image.h"

namespace df::network {
namespace {

bool is_uniform(const Steps& steps) { return steps.table.empty(); }

// Whether vectors of channels of a view are in memory at uniform strides; then sets these. `rows` and `columns` are the dimensions
// of the image, -1 for none.
bool in_memory(const View& view, int channels, int rows, int columns, int64_t& row, int64_t& pixel) {
  const Steps c = steps(view.dims[static_cast<size_t>(channels)]);
  const Steps y = rows < 0 ? Steps{} : steps(view.dims[static_cast<size_t>(rows)]);
  const Steps x = columns < 0 ? Steps{} : steps(view.dims[static_cast<size_t>(columns)]);
  row = y.stride;
  pixel = x.stride;
  return is_uniform(c) && (c.stride == 1 || c.count == 1) && is_uniform(y) && is_uniform(x);
}

// The first stages, where the product can do them: add or multiply a view that is in memory. The others remain.
void split_epilogue(const Operation& operation, int channels, int rows, int columns, PreparedConvolution& out) {
  size_t n = 0;
  for (; n < operation.epilogue.size() && out.fast.size() < kMaxStages; ++n) {
    const Stage& stage = operation.epilogue[n];
    if (stage.type != Stage::kOperand || (stage.binary != Binary::kAdd && stage.binary != Binary::kMultiply)) break;
    PreparedConvolution::Fast fast{stage.binary == Binary::kMultiply, stage.operand.buffer, stage.operand.offset, 0, 0};
    if (!in_memory(stage.operand, channels, rows, columns, fast.row, fast.pixel)) break;
    out.fast.push_back(fast);
  }
  out.epilogue = prepare_stages({operation.epilogue.begin() + static_cast<std::ptrdiff_t>(n), operation.epilogue.end()},
                                operation.output, channels);
}

// Weights (channels, outputs / groups, *kernel) of a transposed convolution as those of a convolution: the kernel is turned round.
std::vector<float> turned(std::span<const float> weights, const ConvolutionShape& s) {
  const int64_t taps = s.kernel_height * s.kernel_width, to = s.outputs / s.groups, from = s.channels / s.groups;
  std::vector<float> out(weights.size());
  for (int64_t g = 0; g < s.groups; ++g)
    for (int64_t o = 0; o < to; ++o)
      for (int64_t c = 0; c < from; ++c)
        for (int64_t t = 0; t < taps; ++t)
          out[static_cast<size_t>(((g * to + o) * from + c) * taps + taps - 1 - t)] =
              weights[static_cast<size_t>(((g * from + c) * to + o) * taps + t)];
  return out;
}

// The shape of a convolution, and how the input of a transposed one is stretched.
void set_shape(const Operation& operation, PreparedConvolution& out) {
  const auto& kind = std::get<Convolution>(operation.kind);
  const View &x = operation.inputs[0], &w = operation.inputs[1], &y = operation.output;
  const bool flat = kind.strides.size() == 1;
  // Attributes and sizes per dimension of the image; one dimension is an image of one row.
  const auto of = [&](const std::vector<int64_t>& list, bool row, int64_t none, size_t per = 1) {
    return flat && row ? none : list[(flat || row ? 0 : 1) * per];
  };
  const auto size = [&](const View& view, int skip, bool row) { return flat && row ? 1 : view.size(skip + (flat || row ? 0 : 1)); };
  ConvolutionShape& s = out.shape;
  s.channels = x.size(0);
  s.outputs = y.size(0);
  s.groups = kind.groups;
  s.height = out.input_height = size(x, 1, true);
  s.width = out.input_width = size(x, 1, false);
  s.out_height = size(y, 1, true);
  s.out_width = size(y, 1, false);
  s.kernel_height = size(w, 2, true);
  s.kernel_width = size(w, 2, false);
  if (s.kernel_height > kMaxTaps || s.kernel_width > kMaxTaps / s.kernel_height)
    throw std::invalid_argument("a kernel has more than " + std::to_string(kMaxTaps) + " elements");
  s.stride_y = of(kind.strides, true, 1);
  s.stride_x = of(kind.strides, false, 1);
  s.dilation_y = of(kind.dilations, true, 1);
  s.dilation_x = of(kind.dilations, false, 1);
  s.pad_top = of(kind.pads, true, 0, 2);
  s.pad_left = of(kind.pads, false, 0, 2);
  if (kind.transposed) {
    const auto stretch = [](int64_t& length, int64_t& stride, int64_t kernel, int64_t dilation, int64_t& pad, int64_t& by,
                            int64_t& crop) {
      by = stride;
      stride = 1;
      pad = dilation * (kernel - 1) - pad;
      crop = std::max<int64_t>(0, -pad);
      pad += crop;
      length = (length - 1) * by + 1 - crop;
      if (length < 1 || length > INT32_MAX) throw std::invalid_argument("a transposed convolution is cut beyond its input");
    };
    stretch(s.height, s.stride_y, s.kernel_height, s.dilation_y, s.pad_top, out.stretch_y, out.crop_y);
    stretch(s.width, s.stride_x, s.kernel_width, s.dilation_x, s.pad_left, out.stretch_x, out.crop_x);
  }
}

ConvolutionAlgorithm algorithm_of(const ConvolutionShape& shape, Precision precision) {
  return precision == Precision::kFloat32Fast ? fast_algorithm(shape) : float32_algorithm(shape);
}

}  // namespace

ConvolutionAlgorithm convolution_algorithm(const Operation& operation, Precision precision) {
  PreparedConvolution described;
  set_shape(operation, described);
  return algorithm_of(described.shape, precision);
}

int64_t PreparedConvolution::scratch(int64_t rows) const {
  const int64_t result = write_in_place ? 0 : rows * shape.out_height * shape.out_width * shape.outputs;
  return rows * round_up(prologue.moments) + round_up(prologue.work) + round_up(result) +
         convolution_scratch_size(shape, algorithm, rows, kDefaultCacheBytes);
}

void PreparedConvolution::load(const Context& context, const Operation& operation) {
  const auto* linear = std::get_if<Linear>(&operation.kind);
  const size_t parts = linear == nullptr ? 1 : static_cast<size_t>(linear->parts);
  std::vector<float> storage, together;
  const auto constant = [&](size_t input) {
    const View& view = operation.inputs[input];
    return dense(view, context.constant(view), storage);
  };
  const auto append = [&](size_t first, size_t last, std::vector<float>& out) {
    for (size_t i = first; i < last; ++i) {
      const std::span<const float> part = constant(i);
      out.insert(out.end(), part.begin(), part.end());
    }
  };
  std::span<const float> all;
  if (parts > 1) {
    append(1, 1 + parts, together);
    all = together;
  } else if (linear == nullptr && std::get<Convolution>(operation.kind).transposed) {
    together = turned(constant(1), shape);
    all = together;
  } else {
    all = constant(1);
  }
  float* to = context.weights->take(weights());
  pack_convolution(shape, algorithm, all.data(), to);
  packed = to;
  append(1 + parts, operation.inputs.size(), bias);
}

std::unique_ptr<Prepared> prepare_convolution(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedConvolution>();
  set_shape(operation, *out);
  const ConvolutionShape& s = out->shape;
  const auto& kind = std::get<Convolution>(operation.kind);
  const View &x = operation.inputs[0], &y = operation.output;
  const bool flat = kind.strides.size() == 1;
  out->run = context.kernels.convolution;
  out->algorithm = algorithm_of(s, context.precision);

  const int rows = flat ? -1 : 1, columns = flat ? 1 : 2;
  out->prologue = prepare_stages(operation.prologue, x, 0);
  const bool stretched = out->stretch_y * out->stretch_x != 1 || out->crop_y + out->crop_x != 0;
  out->read_in_place = in_memory(x, 0, rows, columns, out->read_row, out->read_pixel) && operation.prologue.empty() && !stretched;
  out->write_in_place = in_memory(y, 0, rows, columns, out->write_row, out->write_pixel);
  split_epilogue(operation, 0, rows, columns, *out);
  return out;
}

// The rows of a Linear are the rows of an image of one column.
std::unique_ptr<Prepared> prepare_linear(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedConvolution>();
  // Leading dimensions become one.
  const auto flattened = [](const View& view) {
    View flat{view.buffer, view.offset, {{}, view.dims.back()}};
    for (size_t d = 0; d + 1 < view.dims.size(); ++d)
      flat.dims[0].insert(flat.dims[0].end(), view.dims[d].begin(), view.dims[d].end());
    return flat;
  };
  Operation flat = operation;
  flat.output = flattened(operation.output);
  for (Stage& stage : flat.epilogue)
    if (stage.type == Stage::kOperand) stage.operand = flattened(stage.operand);
  const View &x = operation.inputs[0], rows = flattened(x);
  ConvolutionShape& s = out->shape;
  s.channels = rows.size(1);
  s.outputs = flat.output.size(1);
  s.height = s.out_height = out->input_height = rows.size(0);
  s.width = s.out_width = out->input_width = 1;
  out->run = context.kernels.linear;
  out->algorithm = float32_algorithm(s);
  out->prologue = prepare_stages(operation.prologue, x, x.rank() - 1);
  out->read_in_place = in_memory(rows, 1, 0, -1, out->read_row, out->read_pixel) && operation.prologue.empty();
  out->write_in_place = in_memory(flat.output, 1, 0, -1, out->write_row, out->write_pixel);
  split_epilogue(flat, 1, 0, -1, *out);
  return out;
}

}  // namespace df::network
