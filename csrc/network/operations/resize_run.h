// Resize: (1 - w) a + w b as fma(w, b, fma(-w, a, a)).
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"

namespace df::network {
namespace {

void run_resize(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedResize&>(prepared);
  for (int64_t row = 0; row < rows.count; ++row) {
    const float* x = rows.read(op.first.buffer, row);
    const Line out{op.epilogue, rows, row, nullptr};
    for (int64_t p = 0; p < op.epilogue.points; ++p) {
      const Operand a = operand_at(op.first, x, p), b = operand_at(op.second, x, p);
      const float* w = op.weight.data() + op.point_weight.at(p);
      const Operand share{w, &op.inner_weight, op.inner_weight.table.empty() && op.inner_weight.stride == 1,
                          op.inner_weight.table.empty() && op.inner_weight.stride == 0};
      each_vector(op.epilogue.inner, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
        const F from = a.get<kWhole>(i, count), weight = share.get<kWhole>(i, count);
        store<kWhole>(scratch + i, count, V::fma(weight, b.get<kWhole>(i, count), V::fma(negate(weight), from, from)));
      });
      write_points(out, p, 1, scratch, 0);
    }
  }
}

}  // namespace
}  // namespace df::network
