// The products of one instruction set: functions on pointers, without containers and without memory of their own.
#pragma once

#include <cstdint>

#include "network/products/convolution.h"
#include "network/products/image.h"

namespace df::network {

// A matrix of `rows` rows per sample times packed weights is a 1x1 convolution over pixels (row, 0).
DF_INLINE ConvolutionShape linear_shape(int64_t rows, int64_t depth, int64_t columns) {
  ConvolutionShape shape{};
  shape.channels = depth;
  shape.outputs = columns;
  shape.height = shape.out_height = rows;
  shape.width = shape.out_width = 1;
  return shape;
}

struct ProductKernels {
  const char* name;

  // out = stages(bias + convolution(source)), with the weights packed for the algorithm. Scratch of convolution_scratch_size floats
  // is aligned to 64 bytes. The output must not overlap the input or the operands of stages. Parts may run at the same time, each
  // with its own scratch; then there is one sample.
  void (*convolution)(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const float* packed, const ImageSource& source,
                      const ImageTarget& target, int64_t samples, const ConvolutionPart& part, int64_t cache_bytes, float* scratch);
};

extern const ProductKernels products_scalar;
#if defined(DF_HAVE_AVX2)
extern const ProductKernels products_avx2;
#endif
#if defined(DF_HAVE_AVX512)
extern const ProductKernels products_avx512;
#endif
#if defined(DF_HAVE_NEON)
extern const ProductKernels products_neon;
#endif

}  // namespace df::network
