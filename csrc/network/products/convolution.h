// Convolutions: their shapes, the choice of an algorithm, and how their work is cut to fit the cache.
#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df::network {

// A convolution over images of height x width pixels; one dimension is height = 1. Padding after the last pixel follows from the
// size of the output.
struct ConvolutionShape {
  int64_t channels, outputs, groups = 1;
  int64_t height, width, out_height, out_width;
  int64_t kernel_height = 1, kernel_width = 1, stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1;
  int64_t pad_top = 0, pad_left = 0;
};

// Elements of a kernel, at most: a call has a table of them on its stack. Callers check.
constexpr int64_t kMaxTaps = 4096;

enum class ConvolutionAlgorithm : int32_t { kDirect, kWinograd2, kWinograd4 };

// Whether Winograd's algorithms can compute it: 3x3, stride 1, no dilation, one group.
bool is_winograd_shape(const ConvolutionShape& shape);

// The algorithm of the precision float32. It depends on the shape alone, because the algorithm determines the bits.
//
// F(2,3) for 3x3 kernels with stride 1, no dilation and one group, if there are at least 16 channels on both sides, at least 4x4
// output pixels, and either 36 pixels or at most 8192 pairs of channels; else direct. It needs 4/9 of the multiplications. With
// fewer channels the transforms cost more than it saves. On small images there are fewer tiles than 16 large matrices of weights
// are worth reading for.
ConvolutionAlgorithm float32_algorithm(const ConvolutionShape& shape);

// The algorithm of the precision float32-fast: F(4,3) where float32 has F(2,3), if there are at least 4 tiles of 4x4 output pixels
// and at most 4096 pairs of channels for each tile; else that of float32. F(4,3) needs 1/4 of the multiplications, but 36 matrices.
ConvolutionAlgorithm fast_algorithm(const ConvolutionShape& shape);

// Floats of the packed weights.
int64_t packed_convolution_size(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm);

// Packs weights (outputs, channels / groups, kernel_height, kernel_width) for the algorithm.
void pack_convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const float* weights, float* packed);

// How many samples, or how many rows of one sample, are computed together. It changes no bits.
struct ConvolutionChunk {
  int64_t samples, rows;  // rows of output pixels, or of tiles; all of them if samples > 1
};

// The part of a convolution's output that one thread computes: parts of rows or, of a small image, of output channels. It changes
// no bits.
struct ConvolutionPart {
  int64_t index = 0, count = 1;
};

// Bytes of the second-level cache that one thread has to itself. Sizes chunks.
constexpr int64_t kDefaultCacheBytes = 512 << 10;

ConvolutionChunk convolution_chunk(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, int64_t samples,
                                   int64_t cache_bytes);

// Pixels in a row of padded input, and rows of input that `rows` consecutive output rows read.
DF_INLINE constexpr int64_t strip_width(const ConvolutionShape& s) {
  const int64_t read = (s.out_width - 1) * s.stride_x + (s.kernel_width - 1) * s.dilation_x + 1, written = s.pad_left + s.width;
  return read > written ? read : written;
}
DF_INLINE constexpr int64_t strip_rows(const ConvolutionShape& s, int64_t rows) {
  const int64_t read = (rows - 1) * s.stride_y + (s.kernel_height - 1) * s.dilation_y + 1;
  return read < s.height ? read : s.height;
}

// Floats of scratch that a call on that many samples needs, aligned to 64 bytes.
int64_t convolution_scratch_size(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, int64_t samples,
                                 int64_t cache_bytes);

}  // namespace df::network
