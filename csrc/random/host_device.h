// DF_INLINE: always inlined, and callable from device code when a CUDA compiler reads it.
#pragma once

#if defined(__CUDACC__)
#define DF_INLINE __host__ __device__ __forceinline__
#else
#define DF_INLINE inline __attribute__((always_inline))
#endif
