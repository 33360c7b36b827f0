// The layout of weights: panels of 16 columns, [panel][k][16], the last one padded with zeros.
//
// Winograd's algorithms have a matrix for each of their products. There, kGroup panels of all matrices lie together,
// [group][product][panel][k][16]: a group's output is complete, and transformed back, before the next group is read.
//
// A column is an output channel. A kernel reads one panel from its first element to its last, so the width of a vector changes only
// how many loads one k takes: 16 columns are one vector of AVX-512, two of AVX2, four of NEON.
#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df::network {

constexpr int64_t kPanel = 16;

DF_INLINE constexpr int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }
DF_INLINE constexpr int64_t round_to_panel(int64_t columns) { return panels_of(columns) * kPanel; }

constexpr int64_t kGroup = 4;  // panels; fewer in the last group

// Floats of a packed matrix of `depth` rows (k) and `columns` columns.
DF_INLINE constexpr int64_t packed_size(int64_t depth, int64_t columns) { return depth * round_to_panel(columns); }

}  // namespace df::network
