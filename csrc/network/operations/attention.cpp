#include "network/operations/prepared.h"

namespace df::network {

// Queries in a block: one vector of AVX-512. Keys and values are copied where their rows are not contiguous.
int64_t PreparedAttention::scratch(int64_t) const {
  return round_up(16 * depth) + round_up(16 * keys) + round_up(16 * columns) + round_up(keys * depth) + round_up(keys * columns) +
         round_up(16 * columns);
}

std::unique_ptr<Prepared> prepare_attention(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedAttention>();
  const auto& kind = std::get<Attention>(operation.kind);
  out->run = context.kernels.attention;
  out->q = matrices(operation.inputs[0]);
  out->k = matrices(operation.inputs[1]);
  out->v = matrices(operation.inputs[2]);
  out->masked = operation.inputs.size() == 4;
  if (out->masked) out->mask = matrices(operation.inputs[3]);
  out->causal = kind.causal;
  out->scale = static_cast<float>(kind.scale);
  out->softcap = static_cast<float>(kind.softcap);
  out->lead = out->q.lead.count;
  out->queries = out->q.rows.count;
  out->keys = out->k.rows.count;
  out->depth = out->q.columns.count;
  out->columns = out->v.columns.count;
  out->epilogue = prepare_stages(operation.epilogue, operation.output, operation.output.rank() - 1);
  return out;
}

}  // namespace df::network
