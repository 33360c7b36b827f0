#include "step/table.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "threads/pool.h"

namespace df {
namespace {

void check(const ReadyRow& ready_row, int64_t number, const Buffers& b) {
  const Row& row = ready_row.row;
  const uint32_t t = ready_row.terms;
  const auto need = [&](bool there, const std::string& what) {
    if (!there) throw std::invalid_argument("row " + std::to_string(number) + " needs " + what + ", which is not there");
  };
  need(b.x != nullptr && b.out != nullptr, "a state");
  for (int j = 0; j < kMaxOutputs; ++j)
    if (reads_output(ready_row, j)) need(b.outputs[j] != nullptr, "network output " + std::to_string(j));
  if (t & kLearnedS) need(b.variance_offset >= 0 && b.outputs[0] != nullptr, "the network's variance channel");
  if (b.mask != nullptr && (t & kKnownY)) need(b.y != nullptr, "the known region");
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument("row " + std::to_string(number) + " has " + what);
  };
  const auto fraction = [&](const char* name) {
    if (!(row.reduce_0 >= 0.0f && row.reduce_0 <= 1.0f))
      refuse(name + std::string(" ") + std::to_string(row.reduce_0) + "; it must be from 0 to 1");
  };
  switch (static_cast<Reduce>(row.reduce)) {
    case Reduce::kNone:
    case Reduce::kLangevin: break;
    // A quantile outside the sample would be read outside the sample.
    case Reduce::kDynamicThreshold: fraction("a dynamic threshold at the quantile"); break;
    case Reduce::kGuidanceRescale: fraction("a guidance rescale with phi"); break;
    case Reduce::kLangevinGiven: need(ready_row.history_count > 0, "a register with the noise"); break;
    default: refuse("an unknown reduction " + std::to_string(row.reduce));
  }
  const auto need_register = [&](int k) {
    need(b.registers != nullptr && k < std::min(b.register_count, kMaxRegisters), "register " + std::to_string(k));
  };
  if (row.write >= 0) need_register(row.write);
  for (int i = 0; i < ready_row.history_count; ++i) need_register(ready_row.history[i]);
  for (int i = 0; i < ready_row.keep_count; ++i) need_register(ready_row.keep[i]);
}

}  // namespace

std::vector<ReadyRow> ready_table(const Row* rows, int64_t count, const Buffers& buffers) {
  FloatMode mode;  // a mode that takes denormals for zero would lose terms here
  std::vector<ReadyRow> table;
  table.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    table.push_back(ready(rows[i]));
    check(table.back(), i, buffers);
  }
  return table;
}

}  // namespace df
