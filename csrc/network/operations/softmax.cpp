#include "network/operations/prepared.h"

namespace df::network {

int64_t PreparedSoftmax::scratch(int64_t) const { return stages_scratch(prologue) + round_up(prologue.inner); }

std::unique_ptr<Prepared> prepare_softmax(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedSoftmax>();
  out->run = context.kernels.softmax;
  const int axis = std::get<Softmax>(operation.kind).axis;
  out->prologue = prepare_stages(operation.prologue, operation.inputs[0], axis);
  out->epilogue = prepare_stages(operation.epilogue, operation.output, axis);
  return out;
}

}  // namespace df::network
