// Rows of input for a convolution: written by the caller's function, or copied.
//
// For sources that are compiled once per instruction set.
#pragma once

#include <cstring>

#include "network/products/convolution.h"
#include "network/products/image.h"
#include "simd/simd.h"

namespace df::network {
namespace {

// Rows [y_begin, y_end) of a sample, see ImageSource::write.
inline void write_rows(const ImageSource& source, const ConvolutionShape& s, int64_t sample, int64_t y_begin, int64_t y_end,
                       float* destination, int64_t row, int64_t pixel) {
  if (source.write != nullptr) return source.write(source.context, sample, y_begin, y_end, destination, row, pixel);
  for (int64_t y = y_begin; y < y_end; ++y)
    for (int64_t x = 0; x < s.width; ++x)
      std::memcpy(destination + (y - y_begin) * row + x * pixel, source.pixels.at(sample, y, x),
                  static_cast<size_t>(s.channels) * sizeof(float));
}

// Of `count` things in order, those that belong to a part.
struct Range {
  int64_t begin, end;
};
DF_INLINE Range range_of(const ConvolutionPart& part, int64_t count) {
  return {count * part.index / part.count, count * (part.index + 1) / part.count};
}

// Zeros left and right of the pixels in rows of `width` padded pixels.
inline void clear_sides(const ConvolutionShape& s, float* rows, int64_t count, int64_t row, int64_t pixel, int64_t width) {
  const int64_t after = s.pad_left + s.width;
  for (int64_t y = 0; y < count; ++y) {
    std::memset(rows + y * row, 0, static_cast<size_t>(s.pad_left * pixel) * sizeof(float));
    std::memset(rows + y * row + after * pixel, 0, static_cast<size_t>((width - after) * pixel) * sizeof(float));
  }
}

}  // namespace
}  // namespace df::network
