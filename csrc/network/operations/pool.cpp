#include <algorithm>
#include <stdexcept>

#include "network/operations/prepared.h"

namespace df::network {

constexpr size_t kMostTaps = size_t{1} << 26;

int64_t PreparedPool::scratch(int64_t) const {
  return stages_scratch(prologue) + round_up(prologue.points * round_up(prologue.inner)) + round_up(prologue.inner);
}

std::unique_ptr<Prepared> prepare_pool(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedPool>();
  const auto& kind = std::get<Pool>(operation.kind);
  out->run = context.kernels.pool;
  out->function = kind.function;
  out->count_padding = kind.count_padding;
  out->prologue = prepare_stages(operation.prologue, operation.inputs[0], 0);
  out->epilogue = prepare_stages(operation.epilogue, operation.output, 0);

  const size_t spatial = kind.kernel.size();
  const std::vector<int64_t> in = operation.inputs[0].shape(), size = operation.output.shape();
  std::vector<int64_t> at(spatial, 0), begin(spatial), end(spatial), tap(spatial);
  // Counts up the last index first; false at the end.
  const auto next = [&](std::vector<int64_t>& index, const auto& first, const auto& last) {
    for (size_t d = spatial; d-- > 0;) {
      if (++index[d] < last(d)) return true;
      index[d] = first(d);
    }
    return false;
  };
  out->tap_begin.push_back(0);
  do {
    int64_t counted = 1;
    for (size_t d = 0; d < spatial; ++d) {
      const int64_t start = at[d] * kind.strides[d] - kind.pads[2 * d];
      begin[d] = std::max<int64_t>(start, 0);
      end[d] = std::min(start + kind.kernel[d], in[d + 1]);
      if (begin[d] >= end[d]) end[d] = begin[d];
      counted *= kind.count_padding ? kind.kernel[d] : end[d] - begin[d];
    }
    bool any = true;
    for (size_t d = 0; d < spatial; ++d) any = any && begin[d] < end[d];
    tap = begin;
    if (any) do {
        int64_t point = 0;
        for (size_t d = 0; d < spatial; ++d) point = point * in[d + 1] + tap[d];
        out->taps.push_back(static_cast<int32_t>(point));
      } while (next(tap, [&](size_t d) { return begin[d]; }, [&](size_t d) { return end[d]; }));
    if (out->taps.size() > kMostTaps) throw std::invalid_argument("a Pool has too large a kernel");
    out->tap_begin.push_back(static_cast<int64_t>(out->taps.size()));
    out->divisor.push_back(static_cast<float>(counted));
  } while (next(at, [](size_t) { return int64_t{0}; }, [&](size_t d) { return size[d + 1]; }));
  return out;
}

}  // namespace df::network
