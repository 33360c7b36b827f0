// Gather: rows of a table by index; negative ones count from the end.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

void run_gather(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedGather&>(prepared);
  for (int64_t row = 0; row < rows.count; ++row) {
    const float* indices = rows.read(op.indices.buffer, row) + op.indices.offset;
    const float* table = rows.read(op.table_buffer, row) + op.table_offset;
    float* out = scratch;
    for (int64_t j = 0; j < op.indices.points.count; ++j) {
      const auto count = static_cast<float>(op.entries.count);
      float index = indices[op.indices.points.at(j)];
      if (index < 0) index += count;
      if (!(index >= 0 && index < count && index == std::floor(index))) {
        *rows.error = "an index of a Gather is not an integer inside its table";
        return;
      }
      const float* entry = table + op.entries.at(static_cast<int64_t>(index));
      for (int64_t k = 0; k < op.rest.count; ++k) *out++ = entry[op.rest.at(k)];
    }
    write_points(Line{op.epilogue, rows, row, nullptr}, 0, op.epilogue.points, scratch, op.epilogue.inner);
  }
}

}  // namespace
}  // namespace df::network
