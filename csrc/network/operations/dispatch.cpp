#include <cstring>

#include "network/operation.h"

namespace df::network {

extern const Kernels operations_scalar;
#if defined(DF_HAVE_SCALAR_FMA)
extern const Kernels operations_scalar_fma;
#endif
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
  if (std::strcmp(name, "scalar_plain") == 0) return &operations_scalar;
#if defined(DF_HAVE_SCALAR_FMA)
  if (std::strcmp(name, "scalar") == 0 && __builtin_cpu_supports("fma")) return &operations_scalar_fma;
#endif
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
