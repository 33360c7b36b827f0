// The CPU kernels: a table with one entry per instruction set, and the passes that run on them.

#pragma once

#include <cstdint>

#include "step/forward.h"
#include "step/step.h"

namespace df {

// Normals of one sample: out[i] = scale * z of element (element_offset + i).
struct Normals {
  float* out;
  int64_t elements;
  uint64_t element_offset;
  uint64_t seed;
  uint32_t index, row, stream;
  float scale;
};

struct Kernel {
  const char* name;
  // Applies the rows to elements [begin, end) of sample i of the call.
  void (*step)(const Call& call, int64_t i, int64_t begin, int64_t end);
  // Runs the reduction of sample i's row and writes the resulting row to out. scratch holds call.elements floats.
  void (*reduce)(const Call& call, int64_t i, PreparedRow& out, float* scratch);
  void (*normals)(const Normals& what);
  // The Philox words of consecutive counters from `first`, four per counter: for tests of the generator.
  void (*philox)(uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream, int64_t counters, uint32_t* out);
  // The forward process on elements [begin, end) of a sample; begin is a multiple of four.
  void (*forward)(const Forward& what, int64_t sample, int64_t begin, int64_t end);
  // Null if this machine can run the kernel, else the reason why not.
  const char* (*unavailable)();
};

// All compiled kernels, best first.
const Kernel* const* kernels(int& count);

// The kernel of that name, or null.
const Kernel* find_kernel(const char* name);

// The kernel of that name. Throws std::invalid_argument if this build does not have it and std::runtime_error if this machine
// cannot run it.
const Kernel& require_kernel(const char* name);

// The number of threads worth using for a pass over that many elements with `draws` normals per element, at most `limit`. Work
// shorter than the wake-up of a sleeping thread stays on the caller.
int threads_for(int64_t elements, int draws, int limit);

// Applies one row to every sample of the call, on the thread pool: reductions first, then the step.
void run_step(const Kernel& kernel, const Call& call);

// Fills the contiguous `out` with the normals of `count` samples, on the thread pool.
void run_normals(const Kernel& kernel, float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds,
                 const uint32_t* indices, uint32_t row, uint32_t stream, float scale);

// The forward process of `count` samples, on the thread pool.
void run_forward(const Kernel& kernel, const Forward& what, int64_t count);

}  // namespace df
