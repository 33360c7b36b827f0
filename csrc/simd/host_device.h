// DF_INLINE: always inlined; device code under a CUDA compiler. DF_HOST_DEVICE: always inlined, for host and device code.
#pragma once

#if defined(__CUDACC__)
#define DF_INLINE __device__ __forceinline__
#define DF_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DF_INLINE inline __attribute__((always_inline))
#define DF_HOST_DEVICE DF_INLINE
#endif
