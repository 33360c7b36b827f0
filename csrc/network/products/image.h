// What a product reads and writes: pixels of images, channels next to each other.
#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df::network {

// Channel c of pixel (y, x) of a sample is samples[sample][y * row + x * pixel + c]. Strides of zero repeat: one vector per sample
// has row = pixel = 0.
template <class T>
struct Pixels {
  T* const* samples = nullptr;
  int64_t row = 0, pixel = 0;

  DF_INLINE T* at(int64_t sample, int64_t y, int64_t x) const { return samples[sample] + y * row + x * pixel; }
};

// Where the input comes from: from memory as it is, or from a function that writes rows of it, so that a norm and an activation
// are applied on the way and padding is zero behind them.
struct ImageSource {
  Pixels<const float> pixels;  // read if write is null
  // Writes rows [y_begin, y_end) of a sample: channel c of pixel (y, x) to destination[(y - y_begin) * row + x * pixel + c]. It
  // must write all pixels and channels of these rows, and nothing else.
  void (*write)(void* context, int64_t sample, int64_t y_begin, int64_t y_end, float* destination, int64_t row,
                int64_t pixel) = nullptr;
  void* context = nullptr;
};

// One step of the epilogue: result = result + operand, or result * operand.
struct OutputStage {
  bool multiply;
  Pixels<const float> operand;
};

constexpr int kMaxStages = 4;

struct ImageTarget {
  Pixels<float> pixels;
  const float* bias = nullptr;  // one per output channel, or null
  OutputStage stages[kMaxStages];
  int stage_count = 0;
  // If not null: called once rows [y_begin, y_end) of a sample are complete, while they are in a cache. Rows of a sample come in
  // order, each once.
  void (*finish)(void* context, int64_t sample, int64_t y_begin, int64_t y_end) = nullptr;
  void* context = nullptr;
};

}  // namespace df::network
