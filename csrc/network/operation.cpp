#include "network/operation.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>

#include "network/operations/prepared.h"

namespace df::network {

Prepared::Prepared() = default;
Prepared::~Prepared() = default;
void Prepared::load(const Context&, const Operation&) {}

std::unique_ptr<Prepared> prepare(const Context& context, const Operation& operation) {
  constexpr decltype(&prepare_map) kPrepare[] = {prepare_map,     prepare_convolution, prepare_linear, prepare_attention,
                                                 prepare_product, prepare_softmax,     prepare_reduce, prepare_pool,
                                                 prepare_resize,  prepare_gather};
  static_assert(std::size(kPrepare) == std::variant_size_v<Kind>);
  return kPrepare[operation.kind.index()](context, operation);
}

Matrices matrices(const View& view) {
  Matrices out;
  out.buffer = view.buffer;
  out.offset = view.offset;
  Dim lead;
  const auto rank = static_cast<size_t>(view.rank());
  for (size_t d = 0; d + 2 < rank; ++d) lead.insert(lead.end(), view.dims[d].begin(), view.dims[d].end());
  out.lead = steps(lead);
  out.rows = steps(view.dims[rank - 2]);
  out.columns = steps(view.dims[rank - 1]);
  return out;
}

int best_inner(const std::vector<const View*>& views) {
  const View& shape = *views[0];
  const double elements = static_cast<double>(shape.elements());
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int d = 0; d < shape.rank(); ++d) {
    const auto n = static_cast<double>(shape.size(d));
    double each = 0;  // an estimate of the time per point
    for (const View* view : views) {
      const Steps s = steps(view->dims[static_cast<size_t>(d)]);
      const bool vector = s.table.empty() && s.stride <= 1;
      each += 4 + (vector ? n / 8 : n);
    }
    if (const double cost = elements / n * each; cost < least) {
      least = cost;
      best = d;
    }
  }
  return best;
}

std::vector<const View*> views_of(const Operation& operation, const std::vector<Stage>& stages) {
  std::vector<const View*> out{&operation.output, &operation.inputs[0]};
  for (const Stage& stage : stages)
    if (stage.type == Stage::kOperand) out.push_back(&stage.operand);
  return out;
}

}  // namespace df::network
