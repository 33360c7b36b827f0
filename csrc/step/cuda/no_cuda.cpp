// The CUDA step of builds without CUDA: every call throws Unavailable.
#include "step/cuda/device_step.h"

namespace df::cuda {
namespace {
[[noreturn]] void refuse() { throw Unavailable(unavailable_reason()); }
}  // namespace

std::string unavailable_reason() { return "this build has no CUDA kernels"; }
std::unique_ptr<Memory> allocate(int64_t, int) { refuse(); }
std::unique_ptr<Memory> borrow(void*, int64_t, int, std::shared_ptr<void>) { refuse(); }
void order(StreamHandle, StreamHandle, int) { refuse(); }
std::unique_ptr<Stream> make_stream(int) { refuse(); }
std::unique_ptr<DeviceStep> bind(const Binding&, const Row*, int64_t, const float*, const uint64_t*, const uint32_t*,
                                 StreamHandle) {
  refuse();
}
void normals(float*, int64_t, int64_t, uint64_t, const uint64_t*, const uint32_t*, uint32_t, uint32_t, float, StreamHandle) {
  refuse();
}

}  // namespace df::cuda
