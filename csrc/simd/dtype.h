// The dtypes of tensors in memory. Arithmetic is float32.
#pragma once

#include <cstdint>

namespace df {

enum class DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

}  // namespace df
