// The implementations as a table, best first, and the choice among them.

#pragma once

#include <cstdint>

#include "step/step.h"

namespace df {

// Where normals go: out[i] = scale * z of element (element_offset + i).
struct Normals {
  float* out;
  int64_t elements;
  uint64_t element_offset;
  uint64_t seed;
  uint32_t index, row, stream;
  float scale;
};

struct Forward;  // forward.h

struct Kernel {
  const char* name;
  // Applies the rows to elements [begin, end) of sample i of the call.
  void (*step)(const Call& call, int64_t i, int64_t begin, int64_t end);
  // Runs the reduction of sample i's row; writes the row it sets. scratch holds call.elements floats.
  void (*reduce)(const Call& call, int64_t i, ReadyRow& out, float* scratch);
  void (*normals)(const Normals& what);
  // Philox words of the counters from `first`, four each, in order: for tests of the generator itself.
  void (*philox)(uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream, int64_t counters, uint32_t* out);
  // The forward process on elements [begin, end) of a sample; begin is a multiple of four.
  void (*forward)(const Forward& what, int64_t sample, int64_t begin, int64_t end);
  // Null where this machine can run it, else the reason why not.
  const char* (*unavailable)();
};

// All that were compiled, in order of preference.
const Kernel* const* kernels(int& count);

// The kernel of that name, or null.
const Kernel* find_kernel(const char* name);

// Threads that a pass over that many elements is worth, of at most `limit`; `draws` normals are made for each element. What is done
// in less time than a sleeping thread takes to wake is the caller's alone.
int threads_for(int64_t elements, int draws, int limit);

// Applies one row to every sample of the call: reductions first, then the step, on the pool.
void run_step(const Kernel& kernel, const Call& call);

// Fills normals for `count` samples, out contiguous.
void run_normals(const Kernel& kernel, float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds,
                 const uint32_t* indices, uint32_t row, uint32_t stream, float scale);

}  // namespace df
