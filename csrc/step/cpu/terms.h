// Two ways for apply.h to look up the terms of a row.

#pragma once

#include <cstdint>

#include "simd/host_device.h"
#include "step/step.h"

namespace df {
namespace {

// Terms known when the loop is compiled: its branches vanish.
template <uint32_t kTerms, int kHistoryCount>
struct Fixed {
  static DF_INLINE constexpr bool has(uint32_t any) { return (kTerms & any) != 0; }
  static DF_INLINE int history_count(const PreparedRow&) { return kHistoryCount; }
};

// Terms known when the loop runs: one well-predicted branch per term and vector.
struct Any {
  uint32_t terms;
  DF_INLINE bool has(uint32_t any) const { return (terms & any) != 0; }
  static DF_INLINE int history_count(const PreparedRow& row) { return row.history_count; }
};

}  // namespace
}  // namespace df
