// A compiled model that is loaded and draws samples. Every function may be called from any thread.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "compiled/reader.h"
#include "loop/slots.h"
#include "network/network.h"
#include "step/cpu/kernels.h"
#include "threads/stop.h"

namespace df::compiled {

// Values of a conditioning input in its own type, row-major: those of one sample, which all samples get, or those of each sample.
struct Value {
  std::string_view name;
  const void* data;
  size_t bytes;
};

// What to draw: samples with these noise keys.
struct Draw {
  std::span<const uint64_t> seeds;
  std::span<const uint32_t> indices;
  std::span<const Value> values;  // an input that is not among them gets its null value
  int threads = 0;                // for a call of the network; 0 is num_threads()
};

struct Outcome {
  enum Kind { kDone, kStopped, kNotFinite };
  Kind kind = kDone;
  int64_t sample = 0, row = 0;  // of the first that is not finite
};

class Model {
 public:
  // Throws FileError for what is not a valid model, and what the source throws.
  Model(const Source& source, const Kernel& kernel, const network::Kernels& kernels) : Model(read(source), kernel, kernels) {}

  const Description& description() const { return description_; }

  // Writes (samples, elements) to out. Its bits are those of df.sample with the same keys.
  // Throws std::invalid_argument for values that do not fit, and std::runtime_error if the network fails. Then, and unless it is
  // kDone, out is as it was.
  Outcome sample(const Draw& draw, float* out, Stop& stop);

 private:
  Model(Contents contents, const Kernel& kernel, const network::Kernels& kernels);

  std::vector<network::RowHandle> prepare(std::span<const Value> values, int64_t count);

  const Kernel& kernel_;
  const Description description_;
  const std::shared_ptr<const loop::Plan> plan_;
  const float initial_scale_;
  const int outputs_;
  network::Network network_;
};

// The numbers of `count` samples in float32, as the network takes them. Throws std::invalid_argument for a wrong size, and for a
// label that is no class.
std::vector<float> floats_of(const Input& input, const Value& value, int64_t count);

}  // namespace df::compiled
