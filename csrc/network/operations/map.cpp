#include "network/operations/prepared.h"

namespace df::network {

int64_t PreparedMap::scratch(int64_t) const { return stages_scratch(prologue) + round_up(prologue.inner); }

std::unique_ptr<Prepared> prepare_map(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedMap>();
  out->run = context.kernels.map;
  const int inner = best_inner(views_of(operation, operation.prologue));
  out->prologue = prepare_stages(operation.prologue, operation.inputs[0], inner);
  out->output = access(operation.output, inner);
  return out;
}

}  // namespace df::network
