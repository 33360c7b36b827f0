// CUDA devices: what is available, the current device, memory and streams. CUDA's errors become exceptions.
#include "step/cuda/device.h"

#include <algorithm>
#include <utility>

namespace df::cuda {

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // clear it, so that no later call reports it again
  throw Error(std::string(what) + ": " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
}

namespace {

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

// The oldest architecture in the build's list, for example 75 of "75-real,80-real,90".
int oldest_architecture() {
  int oldest = INT32_MAX;
  for (const char* at = DF_CUDA_ARCHITECTURES; *at != '\0';) {
    int number = 0;
    const char* start = at;
    for (; *at >= '0' && *at <= '9'; ++at) number = number * 10 + (*at - '0');
    if (at != start) oldest = std::min(oldest, number);
    while (*at != '\0' && !(*at >= '0' && *at <= '9')) ++at;
  }
  return oldest == INT32_MAX ? 0 : oldest;
}

// 75 as 7.5.
std::string version_of(int number) { return std::to_string(number / 10) + "." + std::to_string(number % 10); }

int capability(int device) {
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return 10 * major + minor;
}

std::string find_reason() {
  int driver = 0, runtime = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return "there is no NVIDIA driver (libcuda.so.1) on this machine";
  }
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t code = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (code == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is for CUDA " + version_text(driver) + "; this build needs one for CUDA " + version_text(runtime);
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0)) return "there is an NVIDIA driver, but no device";
  if (code != cudaSuccess) return std::string("CUDA cannot start: ") + cudaGetErrorString(code);
  const int oldest = oldest_architecture();
  for (int device = 0; device < count; ++device)
    if (capability(device) >= oldest) return "";
  return "no device has the compute capability " + version_of(oldest) + " or more, for which this build has code";
}

// Whether this process has created a context on the device, which takes hundreds of MB of its memory.
bool started(int device) {
  using GetState = int (*)(int device, unsigned* flags, int* active);  // the driver's cuDevicePrimaryCtxGetState
  static const auto get_state = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &found, 12000, cudaEnableDefault, &result);
#else
    cudaGetDriverEntryPoint("cuDevicePrimaryCtxGetState", &found, cudaEnableDefault, &result);
#endif
    cudaGetLastError();
    return result == cudaDriverEntryPointSuccess ? reinterpret_cast<GetState>(found) : nullptr;
  }();
  unsigned flags = 0;
  int active = 1;  // if the driver does not answer
  if (get_state != nullptr) get_state(device, &flags, &active);
  return active != 0;
}

// The current device if it has a context, else the first one that has.
int started_device() {
  int current = 0, count = 0;
  check(cudaGetDevice(&current), "the current device");
  if (started(current)) return current;
  check(cudaGetDeviceCount(&count), "counting the devices");
  for (int device = 0; device < count; ++device)
    if (started(device)) return device;
  return current;
}

}  // namespace

void require_available() {
  const std::string why = unavailable_reason();
  if (!why.empty()) throw Unavailable(why);
}

void require_available(int device) {
  require_available();
  int count = 0;
  check(cudaGetDeviceCount(&count), "counting the devices");
  const std::string name = "cuda:" + std::to_string(device);
  if (device < 0 || device >= count)
    throw Unavailable("there is no " + name + "; this machine has " + std::to_string(count) + ", from cuda:0");
  const int oldest = oldest_architecture();
  if (capability(device) < oldest)
    throw Unavailable(name + " has the compute capability " + version_of(capability(device)) + "; this build has code for " +
                      version_of(oldest) + " or more");
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "asking for a device's properties");
  return value;
}

int device_of(const void* memory, const char* name) {
  const OnDevice on(started_device());
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, memory), name);
  if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged)
    throw std::invalid_argument(std::string(name) + " is not device memory");
  return attributes.device;
}

OnDevice::OnDevice(int device) {
  check(cudaGetDevice(&before_), "the current device");
  if (before_ != device) check(cudaSetDevice(device), "choosing a device");
  changed_ = before_ != device;
}

OnDevice::~OnDevice() {
  if (changed_ && started(before_)) cudaSetDevice(before_);
}

namespace {

// Allows calls that a capture forbids. Python may free memory while this thread captures another library's graph, and cudaFree
// would invalidate that capture.
class BesideCaptures {
 public:
  BesideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~BesideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  BesideCaptures(const BesideCaptures&) = delete;
  BesideCaptures& operator=(const BesideCaptures&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Releases a resource on its device and ignores errors.
template <class Work>
void on_device_quietly(int device, Work work) {
  try {
    const OnDevice on(device);
    work();
  } catch (const Error&) {
  }
  cudaGetLastError();
}

class DeviceMemory final : public Memory {
 public:
  DeviceMemory(int64_t bytes, int device) : bytes_(bytes), device_(device) {
    const OnDevice on(device);
    // At least one byte, so that an empty array has an address.
    check(cudaMalloc(&data_, static_cast<size_t>(std::max<int64_t>(bytes, 1))), "allocating device memory");
  }
  DeviceMemory(void* data, int64_t bytes, int device, std::shared_ptr<void> owner)
      : data_(data), bytes_(bytes), device_(device), owner_(std::move(owner)) {}
  ~DeviceMemory() override {
    if (owner_ != nullptr) return;
    on_device_quietly(device_, [&] {
      const BesideCaptures beside;
      cudaFree(data_);
    });
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }
  int device() const override { return device_; }
  void upload(const void* host, int64_t count, StreamHandle stream) override {
    copy_now(data_, host, count, cudaMemcpyHostToDevice, stream);
  }
  void download(void* host, int64_t count, StreamHandle stream) const override {
    copy_now(host, data_, count, cudaMemcpyDeviceToHost, stream);
  }
  void copy(const Memory& from, StreamHandle stream) override {
    if (from.bytes() != bytes_ || from.device() != device_)
      throw std::invalid_argument("memory is copied from as many bytes of the same device");
    const OnDevice on(device_);
    check(cudaMemcpyAsync(data_, from.data(), static_cast<size_t>(bytes_), cudaMemcpyDeviceToDevice, stream_of(stream)), "copying");
  }

 private:
  void copy_now(void* to, const void* from, int64_t count, cudaMemcpyKind kind, StreamHandle stream) const {
    if (count > bytes_) throw std::invalid_argument("more bytes than the device array has");
    const OnDevice on(device_);
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(count), kind, stream_of(stream)), "copying");
    check(cudaStreamSynchronize(stream_of(stream)), "copying");
  }

  void* data_ = nullptr;
  int64_t bytes_;
  int device_;
  std::shared_ptr<void> owner_;  // set for borrowed memory
};

class DeviceStream final : public Stream {
 public:
  explicit DeviceStream(int device) : device_(device) {
    const OnDevice on(device);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  }
  ~DeviceStream() override {
    on_device_quietly(device_, [&] { cudaStreamDestroy(stream_); });
  }
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  StreamHandle handle() const override { return reinterpret_cast<StreamHandle>(stream_); }
  void synchronize() override {
    const OnDevice on(device_);
    check(cudaStreamSynchronize(stream_), "waiting for a stream");
  }

 private:
  cudaStream_t stream_ = nullptr;
  int device_;
};

}  // namespace

std::string unavailable_reason() {
  static const std::string reason = find_reason();
  return reason;
}

std::unique_ptr<Memory> allocate(int64_t bytes, int device) {
  require_available(device);
  return std::make_unique<DeviceMemory>(bytes, device);
}

std::unique_ptr<Memory> borrow(void* data, int64_t bytes, int device, std::shared_ptr<void> owner) {
  return std::make_unique<DeviceMemory>(data, bytes, device, std::move(owner));
}

void order(StreamHandle waiting, StreamHandle after, int device) {
  require_available();
  const OnDevice on(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  const cudaError_t recorded = cudaEventRecord(event, stream_of(after));
  const cudaError_t waits = recorded == cudaSuccess ? cudaStreamWaitEvent(stream_of(waiting), event, 0) : recorded;
  cudaEventDestroy(event);  // the wait remains
  check(waits, "ordering two streams");
}

std::unique_ptr<Stream> make_stream(int device) {
  require_available(device);
  return std::make_unique<DeviceStream>(device);
}

}  // namespace df::cuda
