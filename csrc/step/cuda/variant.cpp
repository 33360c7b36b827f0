// Selects the compiled kernel for a table of rows: host code, also in builds without CUDA.
#include "step/cuda/device_step.h"
#include "threads/pool.h"

namespace df::cuda {

Variant variant_of(const Row* rows, int64_t count, bool masked) {
  FloatMode mode;  // as in prepare_rows()
  uint32_t terms = masked ? uint32_t{kMask} : 0u;
  bool reduces = false;
  for (int64_t i = 0; i < count; ++i) {
    terms |= masked ? prepare_row(rows[i]).terms : prepare_row(rows[i]).terms & ~(kKnownY | kKnownZ);
    reduces = reduces || rows[i].reduce != static_cast<int32_t>(Reduce::kNone);
  }
  // A reduction changes the terms of its row.
  if (reduces) return {TermSet::kGeneral, true};
  for (int term_set = 0; term_set < kTermSets; ++term_set)
    if ((terms & ~kTermsOf[term_set]) == 0) return {static_cast<TermSet>(term_set), false};
  return {TermSet::kGeneral, false};
}

}  // namespace df::cuda
