#include "step/prepared_rows.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "threads/pool.h"

namespace df {
namespace {

void check(const PreparedRow& prepared, int64_t number, const Buffers& b) {
  const Row& row = prepared.row;
  const uint32_t t = prepared.terms;
  const auto need = [&](bool present, const std::string& what) {
    if (!present) throw std::invalid_argument("row " + std::to_string(number) + " needs " + what + ", which is missing");
  };
  need(b.x != nullptr && b.out != nullptr, "a state");
  for (int j = 0; j < kMaxOutputs; ++j)
    if (reads_output(prepared, j)) need(b.outputs[j] != nullptr, "network output " + std::to_string(j));
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
    // A quantile outside [0, 1] would be read outside the sample.
    case Reduce::kDynamicThreshold: fraction("a dynamic threshold at the quantile"); break;
    case Reduce::kGuidanceRescale: fraction("a guidance rescale with phi"); break;
    case Reduce::kLangevinGiven: need(prepared.history_count > 0, "a register with the noise"); break;
    default: refuse("an unknown reduction " + std::to_string(row.reduce));
  }
  const auto need_register = [&](int k) {
    need(b.registers != nullptr && k < std::min(b.register_count, kMaxRegisters), "register " + std::to_string(k));
  };
  if (row.write >= 0) need_register(row.write);
  for (int i = 0; i < prepared.history_count; ++i) need_register(prepared.history[i]);
  for (int i = 0; i < prepared.keep_count; ++i) need_register(prepared.keep[i]);
}

}  // namespace

std::vector<PreparedRow> prepare_rows(const Row* rows, int64_t count, const Buffers& buffers) {
  FloatMode mode;  // with denormals flushed to zero, terms would be lost here
  std::vector<PreparedRow> table;
  table.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    table.push_back(prepare_row(rows[i]));
    check(table.back(), i, buffers);
  }
  return table;
}

}  // namespace df
