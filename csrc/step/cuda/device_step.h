// The interface of the CUDA step. It needs no CUDA header: a build without CUDA has the same interface (no_cuda.cpp).
//
// A DeviceStep is the step bound to the device buffers of one sampling run. Everything that a launch reads is in static device
// memory: the table of rows, and for each sample its seed, its index, its row number and the row number of its noise. So one
// launch, captured in a graph, can be replayed for every row of every table of the same variant.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "step/prepared_rows.h"
#include "step/step.h"

namespace df::cuda {

// A cudaStream_t; 0 is the default stream.
using StreamHandle = uintptr_t;

// CUDA cannot be used on this machine or in this build; the message says what is missing.
struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// CUDA reported an error.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Why the kernels cannot run on this machine; empty if they can. Never throws and creates no context.
std::string unavailable_reason();

// The step is compiled for several sets of terms; a kernel ignores terms outside its set. The smaller the set, the fewer
// registers a thread needs. A launch uses one set for all rows of the table.
enum class TermSet : int32_t {
  kOneStep = 0,       // up to two outputs, a prediction with a clamp, no noise
  kOneStepNoise = 1,  // the same with noise
  kMultistep = 2,     // the same without noise, with registers
  kGeneral = 3,       // every term
};
inline constexpr int kTermSets = 4;
inline constexpr uint32_t kOneStepTerms = kG0 | kG1 | kPlainM | kX0 | kP | kQ | kClamp | kA | kB | kD;
inline constexpr uint32_t kTermsOf[kTermSets] = {kOneStepTerms, kOneStepTerms | kS,
                                                 kOneStepTerms | kHistory | kWrite | kEx | kEm | kE0, ~0u};
inline constexpr const char* kTermSetNames[kTermSets] = {"one_step", "one_step_noise", "multistep", "general"};

// The properties of a table that a captured launch fixes. A table of the same variant can replace it without a new capture.
struct Variant {
  TermSet term_set;
  bool reduces;  // a reduction runs before the step
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
  // Copy the first `count` bytes, in stream order. Both wait for the copy.
  virtual void upload(const void* host, int64_t count, StreamHandle stream) = 0;
  virtual void download(void* host, int64_t count, StreamHandle stream) const = 0;
  // Copies all bytes of other memory of this device and size. Asynchronous: the caller keeps `from` until the copy is done.
  virtual void copy(const Memory& from, StreamHandle stream) = 0;
};
std::unique_ptr<Memory> allocate(int64_t bytes, int device);
// Memory of another owner, kept alive as long as this exists.
std::unique_ptr<Memory> borrow(void* data, int64_t bytes, int device, std::shared_ptr<void> owner);
// Work queued on `waiting` from now on waits for the work queued on `after` so far. The host does not wait.
void order(StreamHandle waiting, StreamHandle after, int device);

class Stream {
 public:
  virtual ~Stream() = default;
  virtual StreamHandle handle() const = 0;
  virtual void synchronize() = 0;
};
std::unique_ptr<Stream> make_stream(int device);

// The dtype of the times that a launch writes for the network.
enum class TimeType : int32_t { kFloat32 = 0, kFloat64 = 1, kInt32 = 2, kInt64 = 3 };

// The buffers and sizes that a step is bound to. All addresses are of device memory.
struct Binding {
  Buffers buffers;
  int64_t samples = 0, elements = 0;
  uint64_t element_offset = 0;
  DType state = DType::kFloat32, output = DType::kFloat32;
  void* t = nullptr;  // (samples,): each sample's time, for the network; may be null
  TimeType time_type = TimeType::kFloat32;
  int64_t capacity = 0;  // the largest table, in rows
};

class DeviceStep {
 public:
  virtual ~DeviceStep() = default;
  virtual Variant variant() const = 0;
  virtual int64_t rows() const = 0;
  virtual int64_t samples() const = 0;
  virtual int64_t capacity() const = 0;
  virtual size_t outputs() const = 0;  // number of network outputs
  // load, seed and place wait for the stream: their arguments may be freed when they return.
  //
  // Replaces the table of rows. `times`, one per row, may be null if there is no t. Throws std::invalid_argument if the rows do
  // not fit; then nothing has changed.
  virtual void load(const Row* rows, int64_t count, const float* times, StreamHandle stream) = 0;
  virtual void seed(const uint64_t* seeds, const uint32_t* indices, StreamHandle stream) = 0;
  // Sets each sample's row number and the row number of its noise. A negative row makes the sample inactive, as all are at first.
  // Writes t and clears the bad rows.
  virtual void place(const int32_t* rows, const uint32_t* noise_rows, StreamHandle stream) = 0;
  // Applies to every sample its row, then increments its row number and noise row and writes the next t. A sample past the last
  // row is inactive and keeps its t. `outputs`: kMaxOutputs addresses that replace the bound ones for this launch; may be null.
  // Asynchronous; can be captured.
  virtual void launch(StreamHandle stream, const void* const* outputs = nullptr) = 0;
  // For each sample the first row since `place` whose model output held NaN or Inf, or -1. Waits for the stream.
  virtual std::vector<int32_t> first_bad_rows(StreamHandle stream) const = 0;
};
std::unique_ptr<DeviceStep> bind(const Binding& binding, const Row* rows, int64_t count, const float* times, const uint64_t* seeds,
                                 const uint32_t* indices, StreamHandle stream);

// out[i, e] = scale * z of element (element_offset + e); out is float32 device memory.
void normals(float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds, const uint32_t* indices,
             uint32_t row, uint32_t stream_number, float scale, StreamHandle stream);

}  // namespace df::cuda
