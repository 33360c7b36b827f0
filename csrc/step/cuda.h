// The CUDA step for its callers: no CUDA header, so that a build without CUDA (no_cuda.cpp) has the same interface.
//
// A DeviceStep is the step bound to the device buffers of one sampling run. Everything that a launch reads lies in device
// memory that never moves: the table of rows, and for each sample its seed, its index, the number of its row and of its noise.
// So one launch, captured in a graph, is every step of every table of the same variant.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "step/step.h"
#include "step/table.h"

namespace df::cuda {

// A cudaStream_t; 0 is the default stream.
using StreamHandle = uintptr_t;

// There is nothing here to run on: the message says what is missing.
struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// CUDA reported an error.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Empty where the kernels can run on this machine, else why not. Never throws, creates no context.
std::string unavailable_reason();

// The step is compiled for several covers: sets of terms beyond which a kernel does not look. The smaller the set, the fewer
// registers a thread holds. A launch is one cover, for all rows of the table.
enum class Cover : int32_t {
  kOneStep = 0,       // up to two outputs, a prediction with a clamp, no noise
  kOneStepNoise = 1,  // and noise
  kMultistep = 2,     // no noise; registers read and one written
  kGeneral = 3,       // every term
};
inline constexpr int kCovers = 4;
inline constexpr uint32_t kOneStepTerms = kG0 | kG1 | kPlainM | kX0 | kP | kQ | kClamp | kA | kB | kD;
inline constexpr uint32_t kCoverTerms[kCovers] = {kOneStepTerms, kOneStepTerms | kS,
                                                  kOneStepTerms | kHistory | kWrite | kEx | kEm | kE0, ~0u};
inline constexpr const char* kCoverNames[kCovers] = {"one_step", "one_step_noise", "multistep", "general"};

// What a captured launch has fixed about the rows. Tables of one variant can take each other's place under it.
struct Variant {
  Cover cover;
  bool reduces;  // a reduction goes before the step
  bool operator==(const Variant&) const = default;
};
Variant variant_of(const Row* rows, int64_t count, bool masked);

// Device memory, freed when destroyed.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual void* data() const = 0;
  virtual int64_t bytes() const = 0;
  virtual int device() const = 0;
  // The first `count` bytes; ordered on the stream. After `download` the host has them; `upload` has read them.
  virtual void upload(const void* host, int64_t count, StreamHandle stream) = 0;
  virtual void download(void* host, int64_t count, StreamHandle stream) const = 0;
  // All bytes of other memory of this device and size, which stays there until that is done. Asynchronous.
  virtual void copy(const Memory& from, StreamHandle stream) = 0;
};
std::unique_ptr<Memory> allocate(int64_t bytes, int device);
// Memory of another, who is held while this lives.
std::unique_ptr<Memory> borrow(void* data, int64_t bytes, int device, std::shared_ptr<void> owner);
// What `waiting` is given from now on waits for what `after` was given until now. The host does not wait.
void order(StreamHandle waiting, StreamHandle after, int device);

class Stream {
 public:
  virtual ~Stream() = default;
  virtual StreamHandle handle() const = 0;
  virtual void synchronize() = 0;
};
std::unique_ptr<Stream> make_stream(int device);

// The dtype of the times that a launch hands to the network.
enum class TimeType : int32_t { kFloat32 = 0, kFloat64 = 1, kInt32 = 2, kInt64 = 3 };

// What a step is bound to, beside its rows. Addresses of device memory (b.registers too); times and keys of host memory.
struct Binding {
  Buffers buffers;
  int64_t samples = 0, elements = 0;
  uint64_t element_offset = 0;
  DType state = DType::kFloat32, output = DType::kFloat32;
  void* t = nullptr;  // one time per sample, for the network; may be null
  TimeType time_type = TimeType::kFloat32;
  int64_t capacity = 0;  // rows that fit
};

class DeviceStep {
 public:
  virtual ~DeviceStep() = default;
  virtual Variant variant() const = 0;
  virtual int64_t rows() const = 0;
  virtual int64_t samples() const = 0;
  virtual int64_t capacity() const = 0;
  virtual size_t outputs() const = 0;  // network outputs that were bound
  // load, seed and place wait for the stream: what they are given may go when they return.
  //
  // Another table in place of the one that is there; `times` (one per row) may be null where there is no t. Throws
  // std::invalid_argument, before anything is changed, where it does not fit.
  virtual void load(const Row* rows, int64_t count, const float* times, StreamHandle stream) = 0;
  virtual void seed(const uint64_t* seeds, const uint32_t* indices, StreamHandle stream) = 0;
  // The row that each sample is at, and the number of its noise; a negative row: the sample sits out, as all do when bound. Sets t,
  // and forgets what was bad.
  virtual void place(const int32_t* rows, const uint32_t* noise_rows, StreamHandle stream) = 0;
  // Every sample its row; then its row and noise row rise by one, and t follows (past the last row it stays). A sample past
  // the last row sits out. `outputs`: kMaxOutputs addresses in place of those bound, for this launch; may be null.
  // Asynchronous; can be captured.
  virtual void launch(StreamHandle stream, const void* const* outputs = nullptr) = 0;
  // For each sample the first row, since it was placed, whose model output held NaN or Inf, or -1. Waits for the stream.
  virtual std::vector<int32_t> first_bad_rows(StreamHandle stream) const = 0;
};
std::unique_ptr<DeviceStep> bind(const Binding& binding, const Row* rows, int64_t count, const float* times, const uint64_t* seeds,
                                 const uint32_t* indices, StreamHandle stream);

// out[i, e] = scale * z of element element_offset + e; out is float32 on the device.
void normals(float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds, const uint32_t* indices,
             uint32_t row, uint32_t stream_number, float scale, StreamHandle stream);

}  // namespace df::cuda
