// The direct convolution: each output is one chain of fma over kernel rows, kernel columns and channels, in this order.
//
// It begins at the bias. Rows of the kernel that lie in the padding above or below the image are skipped; padding to the left and
// right is multiplied as zeros.
//
// For sources that are compiled once per instruction set.
#pragma once

#include "network/products/block.h"
#include "network/products/convolution.h"
#include "network/products/image.h"
#include "network/products/source.h"

namespace df::network {
namespace {

constexpr int64_t kMaxPixels = 336;  // pixels that are multiplied together; a multiple of 6 and of 14

constexpr int64_t kPartPixels = 96;  // of a part, at least, if it is one of rows

// Which rows of the kernel meet the image at output row y.
struct KernelRows {
  int64_t begin, end;
  bool operator==(const KernelRows&) const = default;
};

DF_INLINE KernelRows kernel_rows(const ConvolutionShape& s, int64_t y) {
  const int64_t top = y * s.stride_y - s.pad_top;
  KernelRows k{0, s.kernel_height};
  while (k.begin < k.end && top + k.begin * s.dilation_y < 0) ++k.begin;
  while (k.begin < k.end && top + (k.end - 1) * s.dilation_y >= s.height) --k.end;
  return k;
}

// The pixels that one call of multiply_rows computes, as pointers, in runs that meet the same rows of the kernel.
struct PixelBatch {
  const float* in[kMaxPixels];
  float* out[kMaxPixels];
  const float* operands[kMaxStages][kMaxPixels];
  int64_t count = 0;
  int64_t column = 0, end = 0;  // output channels [column, end); all of them if there are several groups
  KernelRows kernel[kMaxProducts];
  int64_t begin[kMaxProducts];
  int runs = 0;
};

// Where a convolution reads: the pixel (y, x) of a sample of the chunk, in memory or in the strip that was written for it.
struct DirectInput {
  const float* strip;  // null: in memory
  int64_t strip_sample, first_sample, first_row;
  int64_t row, pixel;
};

DF_INLINE const float* pixel_of(const DirectInput& in, const ImageSource& source, int64_t sample, int64_t y, int64_t x) {
  if (in.strip == nullptr) return source.pixels.samples[sample] + y * in.row + x * in.pixel;
  return in.strip + (sample - in.first_sample) * in.strip_sample + (y - in.first_row) * in.row + x * in.pixel;
}

// Multiplies the batch, for every group.
inline void multiply_batch(const ConvolutionShape& s, const DirectInput& in, const float* packed, const ImageTarget& target,
                           PixelBatch& batch) {
  if (batch.count == 0) return;
  const int64_t inner = s.channels / s.groups, columns = s.groups > 1 ? s.outputs / s.groups : batch.end - batch.column;
  const int64_t depth = s.kernel_height * s.kernel_width * inner;
  // Neighbouring pixels are one run where their channels are.
  const bool merged = s.groups == 1 && s.dilation_x == 1 && in.pixel == s.channels;
  const int64_t runs = merged ? 1 : s.kernel_width, run = merged ? s.kernel_width * inner : inner;  // of a row of the kernel
  const int64_t whole = piece_of(run), piece = s.kernel_height * runs * (run / whole) <= kMaxTaps ? whole : run;
  const int64_t per_row = runs * (run / piece);
  int64_t taps[kMaxTaps];
  int64_t count = 0;
  for (int64_t y = 0; y < s.kernel_height; ++y)
    for (int64_t x = 0; x < runs; ++x)
      for (int64_t k = 0; k < run; k += piece) taps[count++] = y * s.dilation_y * in.row + x * s.dilation_x * in.pixel + k;
  RowStage stages[kMaxStages];
  for (int i = 0; i < target.stage_count; ++i) stages[i] = {target.stages[i].multiply, batch.operands[i]};
  RowProduct products[kMaxProducts];
  for (int i = 0; i < batch.runs; ++i) {
    const KernelRows& k = batch.kernel[i];
    const int64_t end = i + 1 < batch.runs ? batch.begin[i + 1] : batch.count;
    products[i] = {
        taps,   k.begin * per_row, (k.end - k.begin) * per_row, piece, batch.begin[i], end - batch.begin[i], depth * kPanel,
        stages, target.stage_count};
  }
  for (int64_t group = 0; group < s.groups; ++group) {
    const int64_t skipped = group * packed_size(depth, columns) + batch.column * depth;
    multiply_rows(products, batch.runs, batch.in, packed + skipped, columns,
                  target.bias != nullptr ? target.bias + group * columns + batch.column : nullptr, batch.out);
    if (group + 1 == s.groups) break;
    for (int64_t p = 0; p < batch.count; ++p) {
      batch.in[p] += inner;
      batch.out[p] += columns;
    }
    for (int i = 0; i < target.stage_count; ++i)
      for (int64_t p = 0; p < batch.count; ++p) batch.operands[i][p] += columns;
  }
  batch.count = 0;
  batch.runs = 0;
}

inline void convolution_direct(const ConvolutionShape& s, const float* packed, const ImageSource& source, const ImageTarget& target,
                               int64_t samples, const ConvolutionPart& part, int64_t cache_bytes, float* scratch) {
  const ConvolutionChunk chunk = convolution_chunk(s, ConvolutionAlgorithm::kDirect, samples, cache_bytes);
  const int64_t width = strip_width(s);
  const bool in_place = source.write == nullptr && s.pad_left == 0 && width == s.width;
  DirectInput in{};
  if (in_place) {
    in.row = source.pixels.row;
    in.pixel = source.pixels.pixel;
  } else {
    in.strip = scratch;
    in.pixel = s.channels;
    in.row = width * in.pixel;
    in.strip_sample = strip_rows(s, chunk.rows) * in.row;
    clear_sides(s, scratch, chunk.samples * strip_rows(s, chunk.rows), in.row, in.pixel, width);
  }
  // A part is of rows if that leaves enough pixels for each, else of panels; then the input is written for each.
  const int64_t panels = s.groups > 1 ? 1 : panels_of(s.outputs);
  const bool by_rows = panels < part.count || target.finish != nullptr || s.out_height * s.out_width >= kPartPixels * part.count;
  const Range own_rows = by_rows ? range_of(part, s.out_height) : Range{0, s.out_height};
  const Range own_panels = by_rows ? Range{0, panels_of(s.outputs)} : range_of(part, panels);
  PixelBatch batch;
  batch.column = own_panels.begin * kPanel;
  batch.end = own_panels.end * kPanel < s.outputs ? own_panels.end * kPanel : s.outputs;
  for (int64_t first = 0; first < samples; first += chunk.samples) {
    const int64_t last = first + chunk.samples < samples ? first + chunk.samples : samples;
    for (int64_t y_begin = own_rows.begin; y_begin < own_rows.end; y_begin += chunk.rows) {
      const int64_t y_end = y_begin + chunk.rows < own_rows.end ? y_begin + chunk.rows : own_rows.end;
      if (!in_place) {
        const int64_t top = y_begin * s.stride_y - s.pad_top;
        const int64_t bottom = (y_end - 1) * s.stride_y - s.pad_top + (s.kernel_height - 1) * s.dilation_y + 1;
        in.first_sample = first;
        in.first_row = top > 0 ? top : 0;
        const int64_t end = bottom < s.height ? bottom : s.height;
        if (end > in.first_row)
          for (int64_t i = first; i < last; ++i)
            write_rows(source, s, i, in.first_row, end, scratch + (i - first) * in.strip_sample + s.pad_left * in.pixel, in.row,
                       in.pixel);
      }
      // Runs of output rows that meet the same rows of the kernel.
      for (int64_t y = y_begin; y < y_end;) {
        const KernelRows k = kernel_rows(s, y);
        int64_t end = y + 1;
        while (end < y_end && kernel_rows(s, end) == k) ++end;
        const int64_t shift = k.begin * s.dilation_y - s.pad_top;
        bool begun = false;
        for (int64_t i = first; i < last; ++i) {
          for (int64_t row = y; row < end; ++row) {
            for (int64_t x = 0; x < s.out_width; ++x) {
              if (batch.count == kMaxPixels || (!begun && batch.runs == kMaxProducts)) {
                multiply_batch(s, in, packed, target, batch);
                begun = false;
              }
              if (!begun) {
                batch.kernel[batch.runs] = k;
                batch.begin[batch.runs++] = batch.count;
                begun = true;
              }
              const int64_t p = batch.count++;
              batch.in[p] = pixel_of(in, source, i, row * s.stride_y + shift, x * s.stride_x);
              batch.out[p] = target.pixels.at(i, row, x) + batch.column;
              for (int n = 0; n < target.stage_count; ++n)
                batch.operands[n][p] = target.stages[n].operand.at(i, row, x) + batch.column;
            }
          }
        }
        y = end;
      }
      multiply_batch(s, in, packed, target, batch);
      if (target.finish != nullptr)
        for (int64_t i = first; i < last; ++i) target.finish(target.context, i, y_begin, y_end);
    }
  }
}

}  // namespace
}  // namespace df::network
