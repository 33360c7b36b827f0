#include "network/operations/prepared.h"

namespace df::network {

int64_t PreparedReduce::scratch(int64_t) const {
  return stages_scratch(prologue) + round_up(prologue.inner) + round_up(results) + round_up(2 * results);
}

std::unique_ptr<Prepared> prepare_reduce(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedReduce>();
  const auto& kind = std::get<Reduce>(operation.kind);
  const View& x = operation.inputs[0];
  out->run = context.kernels.reduce;
  out->function = kind.function;
  const int inner = best_inner({&x});
  out->prologue = prepare_stages(operation.prologue, x, inner);
  out->epilogue = prepare_stages(operation.epilogue, operation.output, operation.output.rank() - 1);
  // The results are numbered as the moments of a norm over these axes.
  Stage norm;
  norm.type = Stage::kNorm;
  norm.axes = kind.axes;
  const PreparedStage table = prepare_stages({norm}, x, inner).list[0];
  out->results = table.moments;
  out->size = table.moment_size;
  out->point_result = table.point_moment;
  out->inner_result = table.inner_moment;
  return out;
}

}  // namespace df::network
