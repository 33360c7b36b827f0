#include "network/memory.h"

#include <algorithm>
#include <map>

namespace df::network {
namespace {

// Free intervals of a row, by offset.
class Free {
 public:
  // The smallest hole that is large enough, else the end.
  int64_t take(int64_t size) {
    auto best = holes_.end();
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole)
      if (hole->second >= size && (best == holes_.end() || hole->second < best->second)) best = hole;
    if (best == holes_.end()) {
      // A hole that touches the end grows.
      int64_t at = end_;
      if (!holes_.empty()) {
        const auto last = std::prev(holes_.end());
        if (last->first + last->second == end_) {
          at = last->first;
          holes_.erase(last);
        }
      }
      end_ = at + size;
      return at;
    }
    const int64_t at = best->first, rest = best->second - size;
    holes_.erase(best);
    if (rest > 0) holes_[at + size] = rest;
    return at;
  }

  void give(int64_t at, int64_t size) {
    auto next = holes_.lower_bound(at);
    if (next != holes_.end() && at + size == next->first) {
      size += next->second;
      next = holes_.erase(next);
    }
    if (next != holes_.begin()) {
      const auto previous = std::prev(next);
      if (previous->first + previous->second == at) {
        previous->second += size;
        return;
      }
    }
    holes_[at] = size;
  }

  int64_t end() const { return end_; }

 private:
  std::map<int64_t, int64_t> holes_;
  int64_t end_ = 0;
};

template <class Fn>
void each_read(const Operation& op, Fn&& fn) {
  for (const View& view : op.inputs) fn(view.buffer);
  for (const auto* stages : {&op.prologue, &op.epilogue})
    for (const Stage& stage : *stages)
      if (stage.type == Stage::kOperand) fn(stage.operand.buffer);
}

}  // namespace

MemoryPlan plan_memory(const Program& program) {
  MemoryPlan plan;
  const size_t count = program.buffers.size();
  plan.places.resize(count);
  const auto level = [&](int64_t buffer) { return stage_of(program.buffers[static_cast<size_t>(buffer)].level); };
  // Rows that are kept.
  for (size_t b = 0; b < count; ++b) {
    const int of = level(static_cast<int64_t>(b));
    constexpr int kSlotOf[] = {kSlots, kTimeRow, kConditionRow, kPairRow, kSampleRow};
    plan.places[b].slot = kSlotOf[of];
    if (of == kSample) continue;
    plan.places[b].offset = plan.size[of];
    if (program.buffers[b].source == Source::kMemory) plan.size[of] += round_up(program.buffers[b].size);
  }
  plan.places[static_cast<size_t>(program.inputs[0])].slot = kInputRow;
  plan.places[static_cast<size_t>(program.output.buffer)].slot = kOutputRow;

  // Activations.
  std::vector<int64_t> last(count, -1);  // the operation that reads or writes it last
  const auto operations = static_cast<int64_t>(program.operations.size());
  for (int64_t i = 0; i < operations; ++i) {
    const Operation& op = program.operations[static_cast<size_t>(i)];
    each_read(op, [&](int64_t buffer) { last[static_cast<size_t>(buffer)] = i; });
    last[static_cast<size_t>(op.output.buffer)] = i;
  }
  std::vector<bool> placed(count, false);
  Free free;
  const auto is_activation = [&](int64_t buffer) { return plan.places[static_cast<size_t>(buffer)].slot == kSampleRow; };
  for (int64_t i = 0; i < operations; ++i) {
    const Operation& op = program.operations[static_cast<size_t>(i)];
    const auto out = static_cast<size_t>(op.output.buffer);
    if (is_activation(op.output.buffer) && !placed[out]) {
      placed[out] = true;
      plan.places[out].offset = free.take(round_up(program.buffers[out].size));
    }
    const auto give = [&](int64_t buffer) {
      const auto b = static_cast<size_t>(buffer);
      if (!is_activation(buffer) || last[b] != i || !placed[b]) return;
      last[b] = -1;
      free.give(plan.places[b].offset, round_up(program.buffers[b].size));
    };
    each_read(op, give);
    give(op.output.buffer);
  }
  plan.size[kSample] = free.end();
  // An odd number of cache lines: rows of a batch then do not compete for the same sets of the cache.
  plan.row = plan.size[kSample] / 16 % 2 == 0 ? plan.size[kSample] + 16 : plan.size[kSample];
  return plan;
}

}  // namespace df::network
