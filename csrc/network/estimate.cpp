#include "network/estimate.h"

#include <algorithm>

#include "network/constants.h"
#include "network/memory.h"

namespace df::network {

MemoryEstimate estimate_memory(const Program& program, const Kernels& kernels, Precision precision) {
  const MemoryPlan plan = plan_memory(program);
  MemoryEstimate floats;
  for (const int64_t size : plan.size) floats.activations += size;
  const std::vector<bool> kept = read_while_running(program);
  for (size_t b = 0; b < kept.size(); ++b)
    if (kept[b]) floats.weights += program.buffers[b].size;
  for (const Operation& op : program.operations) {
    if (program.buffers[static_cast<size_t>(op.output.buffer)].level == kConstant) continue;
    const auto prepared = prepare({program, plan.places, kernels, precision}, op);
    floats.weights += prepared->weights();
    floats.workspace = std::max(floats.workspace, prepared->scratch(1));
  }
  constexpr int64_t kBytes = sizeof(float);
  return {floats.weights * kBytes, floats.activations * kBytes, floats.workspace * kBytes};
}

}  // namespace df::network
