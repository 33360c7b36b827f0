#include <cstring>

#include "network/operation.h"

namespace df::network {

extern const Kernels operations_scalar;
#if defined(DF_HAVE_AVX2)
extern const Kernels operations_avx2;
#endif
#if defined(DF_HAVE_AVX512)
extern const Kernels operations_avx512;
#endif
#if defined(DF_HAVE_NEON)
extern const Kernels operations_neon;
#endif

const Kernels* find_kernels(const char* name) {
  const Kernels* const table[] = {
#if defined(DF_HAVE_AVX512)
      &operations_avx512,
#endif
#if defined(DF_HAVE_AVX2)
      &operations_avx2,
#endif
#if defined(DF_HAVE_NEON)
      &operations_neon,
#endif
      &operations_scalar,
  };
  for (const Kernels* kernels : table)
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  return nullptr;
}

}  // namespace df::network
