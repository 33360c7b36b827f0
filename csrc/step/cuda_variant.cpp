// Which of the compiled kernels a table needs: host code, the same with CUDA and without.
#include "step/cuda.h"
#include "threads/pool.h"

namespace df::cuda {

Variant variant_of(const Row* rows, int64_t count, bool masked) {
  FloatMode mode;  // as in ready_table
  uint32_t terms = masked ? uint32_t{kMask} : 0u;
  bool reduces = false;
  for (int64_t i = 0; i < count; ++i) {
    terms |= masked ? ready(rows[i]).terms : ready(rows[i]).terms & ~(kKnownY | kKnownZ);
    reduces = reduces || rows[i].reduce != static_cast<int32_t>(Reduce::kNone);
  }
  // A reduction changes the terms of its row.
  if (reduces) return {Cover::kGeneral, true};
  for (int cover = 0; cover < kCovers; ++cover)
    if ((terms & ~kCoverTerms[cover]) == 0) return {static_cast<Cover>(cover), false};
  return {Cover::kGeneral, false};
}

}  // namespace df::cuda
