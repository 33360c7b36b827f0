#include "network/operations/prepared.h"

namespace df::network {

int64_t PreparedGather::scratch(int64_t) const { return round_up(epilogue.points * epilogue.inner); }

std::unique_ptr<Prepared> prepare_gather(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedGather>();
  const View& table = operation.inputs[0];
  out->run = context.kernels.gather;
  out->indices = access(operation.inputs[1], operation.inputs[1].rank());
  out->table_buffer = table.buffer;
  out->table_offset = table.offset;
  out->entries = steps(table.dims[0]);
  Dim rest;
  for (size_t d = 1; d < table.dims.size(); ++d) rest.insert(rest.end(), table.dims[d].begin(), table.dims[d].end());
  out->rest = steps(rest);
  out->epilogue = prepare_stages(operation.epilogue, operation.output, operation.output.rank() - 1);
  return out;
}

}  // namespace df::network
