// A CUDA device, for the host side of the CUDA step: errors, the current device, properties.

#pragma once

#include <cuda_runtime.h>

#include "step/cuda/device_step.h"

namespace df::cuda {

// Throws an Error that says what failed, unless the code is cudaSuccess.
void check(cudaError_t code, const char* what);

// Throws Unavailable if CUDA cannot be used, or if it cannot be used on this device.
void require_available();
void require_available(int device);

inline cudaStream_t stream_of(StreamHandle handle) { return reinterpret_cast<cudaStream_t>(handle); }

int attribute(cudaDeviceAttr which, int device);

// The device that the memory is on. `name` is the memory's, for messages.
int device_of(const void* memory, const char* name);

// Makes a device current for a scope. Almost every CUDA call creates a context on the thread's current device (cuda:0 for a thread
// that never chose one), so the device is set before any other call. The previous device is restored only if it has a context:
// restoring it would create one.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace df::cuda
