// Where the buffers of a program are in the rows of their level.
#pragma once

#include <cstdint>
#include <vector>

#include "network/operation.h"

namespace df::network {

struct MemoryPlan {
  std::vector<Place> places;       // by buffer; constants have no place yet
  int64_t size[kSample + 1] = {};  // floats of a row of each level
  int64_t row = 0;                 // floats from one sample's activations to the next's
};

// Buffers of samples share memory where they do not live at the same time: each takes the lowest free place when it is first
// written and gives it back after it is last read. Rows of the other levels are kept, so each buffer has its own place in them.
MemoryPlan plan_memory(const Program& program);

}  // namespace df::network
