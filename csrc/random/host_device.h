// DF_INLINE: always inlined; device code when a CUDA compiler reads it. DF_BOTH: the same, and host code as well.
#pragma once

#if defined(__CUDACC__)
#define DF_INLINE __device__ __forceinline__
#define DF_BOTH __host__ __device__ __forceinline__
#else
#define DF_INLINE inline __attribute__((always_inline))
#define DF_BOTH DF_INLINE
#endif
