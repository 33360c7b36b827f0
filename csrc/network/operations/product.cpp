#include "network/operations/prepared.h"

namespace df::network {

// b as a dense matrix with padded rows, a row of a, and a row of the result.
int64_t PreparedProduct::scratch(int64_t) const { return depth * round_up(columns) + round_up(depth) + round_up(columns); }

std::unique_ptr<Prepared> prepare_product(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedProduct>();
  out->run = context.kernels.product;
  out->a = matrices(operation.inputs[0]);
  out->b = matrices(operation.inputs[1]);
  out->lead = out->a.lead.count;
  out->rows = out->a.rows.count;
  out->depth = out->a.columns.count;
  out->columns = out->b.columns.count;
  out->epilogue = prepare_stages(operation.epilogue, operation.output, operation.output.rank() - 1);
  return out;
}

}  // namespace df::network
