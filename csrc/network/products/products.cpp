// The products, compiled once per instruction set. Everything but the table has internal linkage.

#include "network/products/products.h"

#include "network/products/convolution_direct.h"
#include "network/products/convolution_winograd.h"
#include "simd/simd.h"

namespace df::network {
namespace {

void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const float* packed, const ImageSource& source,
                 const ImageTarget& target, int64_t samples, const ConvolutionPart& part, int64_t cache_bytes, float* scratch) {
  switch (algorithm) {
    case ConvolutionAlgorithm::kDirect:
      return convolution_direct(shape, packed, source, target, samples, part, cache_bytes, scratch);
    case ConvolutionAlgorithm::kWinograd2:
      return convolution_winograd<2>(shape, packed, source, target, samples, part, cache_bytes, scratch);
    case ConvolutionAlgorithm::kWinograd4:
      return convolution_winograd<4>(shape, packed, source, target, samples, part, cache_bytes, scratch);
  }
}

}  // namespace

extern const ProductKernels DF_PASTE(products_, DF_ISA);
const ProductKernels DF_PASTE(products_, DF_ISA) = {DF_STRING(DF_ISA), convolution};

}  // namespace df::network
