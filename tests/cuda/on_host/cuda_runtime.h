// A CUDA device emulated on the host, for tests: the parts of CUDA that csrc/step/cuda uses, in C++.
//
// Work is queued and run as late as a device may run it: when something waits. A copy reads its source then, which exposes memory
// that was freed or changed too early. During a capture, launches go to its tape, and work that cannot be captured is an error.
//
// A launch walks its grid. Every thread of a block is a fiber that runs to its end or to __syncthreads. The threads of a block run
// in a random order, a new one after each barrier, which exposes code that depends on the order. Memory is host memory of exactly
// the size asked for, so that a sanitizer sees an access one byte outside. A misaligned vector access aborts, as it would fault
// on a device; so does a barrier that some thread of the block does not reach.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

// ---- vectors, indices ----------------------------------------------------------------------------------
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace on_host {
void barrier();
void walk(dim3 grid, dim3 block, const std::function<void()>& thread);

// Work of the device, in order. finish() runs everything that is queued.
using Work = std::function<void()>;
void enqueue(Work work);
void finish();

// From begin_capture on, launches are not run but recorded; end_capture returns them, or null if the capture was invalidated.
using Tape = std::vector<Work>;
void begin_capture();
std::unique_ptr<Tape> end_capture();
void replay(const Tape& tape);

// Stream `waiting` waits for the work queued on `after`. In order of the calls.
struct Wait {
  uintptr_t waiting, after;
};
extern std::vector<Wait> waits;

// Bytes of tensors read and written since this was last set to 0.
extern int64_t bytes;
// Processors that the device claims to have: few, and a thread takes many elements.
extern int processors;
// Launches since this was last set to 0.
extern int launches;
// Memory that is not the device's.
void declare_host_memory(const void* memory);
// The calling thread's device, and that of the last launch.
extern thread_local int current;
// Devices that were started: as on a real one, by choosing them, and by almost every call while they are current.
extern std::set<int> started;
void start();
extern int launched_on;
// What the device claims to be: cudaDriverGetVersion, cudaGetDeviceCount (a code and a number), its compute capability.
extern int driver, count_code, count, capability;
}  // namespace on_host

#define DF_ON_ACCESS(size) (on_host::bytes += (size))
#define __syncthreads() on_host::barrier()

// ---- arithmetic: each of these is one operation of IEEE 754, compiled without contraction --------------------
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline int __float_as_int(float a) {
  int bits;
  std::memcpy(&bits, &a, 4);
  return bits;
}
inline float __int_as_float(int bits) {
  float a;
  std::memcpy(&a, &bits, 4);
  return a;
}

// Threads take turns: whatever one does between two barriers is done alone.
template <class T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, static_cast<T>(*at + value));
}
template <class T>
T atomicAnd(T* at, T value) {
  return std::exchange(*at, *at & value);
}
template <class T>
T atomicMin(T* at, T value) {
  return std::exchange(*at, value < *at ? value : *at);
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  return std::exchange(*at, *at == expected ? value : *at);
}

// ---- the runtime ------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2
};
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76
};
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
#define CUDART_VERSION 13000
constexpr unsigned long long cudaEnableDefault = 0;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaFuncAttributes {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

const char* cudaGetErrorString(cudaError_t code);
const char* cudaGetErrorName(cudaError_t code);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** found, unsigned version, unsigned long long flags,
                                             cudaDriverEntryPointQueryResult* result);

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  on_host::start();
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  // The limits of every device since compute capability 3.0.
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  if (grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535 || grid.z != 1 || block.x < 1 || block.x > 1024)
    return cudaErrorInvalidValue;
  on_host::start();
  on_host::launched_on = on_host::current;
  // Arguments are copied when a kernel is launched.
  on_host::enqueue([=, copied = std::tuple<std::decay_t<Parameters>...>(arguments...)] {
    on_host::walk(grid, block, [&] { std::apply(kernel, copied); });
  });
  return cudaSuccess;
}
