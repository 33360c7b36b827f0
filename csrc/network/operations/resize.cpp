#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

#include "network/operations/prepared.h"

namespace df::network {
namespace {

// The view of the input along the axis at the given indices, as an access of the output's shape.
Access at_indices(const View& x, size_t axis, std::span<const float> indices, int inner) {
  const Steps along = steps(x.dims[axis]);
  View picked = x;
  picked.dims[axis] = {{static_cast<int64_t>(indices.size()), 0}};  // the right size; its offsets are added below
  Access out = access(picked, inner);
  View number = picked;  // along the axis, the number of the index; 0 along the others
  for (size_t d = 0; d < number.dims.size(); ++d)
    for (Atom& atom : number.dims[d]) atom.stride = d == axis ? 1 : 0;
  const Access which = access(number, inner);
  const bool within = static_cast<int>(axis) == inner;
  Steps& offsets = within ? out.inner : out.points;
  const Steps& numbers = within ? which.inner : which.points;
  std::vector<int32_t> table;
  for (int64_t i = 0; i < offsets.count; ++i) {
    const float index = indices[static_cast<size_t>(numbers.at(i))];
    table.push_back(static_cast<int32_t>(offsets.at(i) + along.at(static_cast<int64_t>(index))));
  }
  offsets.table = std::move(table);
  return out;
}

}  // namespace

int64_t PreparedResize::scratch(int64_t) const { return round_up(epilogue.inner); }

void PreparedResize::load(const Context& context, const Operation& operation) {
  const auto axis = std::get<Resize>(operation.kind).axis;
  const View& x = operation.inputs[0];
  std::vector<float> storage;
  const auto table = [&](size_t input) {
    return dense(operation.inputs[input], context.constant(operation.inputs[input]), storage);
  };
  for (size_t input = 1; input <= 2; ++input) {
    const std::span<const float> indices = table(input);
    for (const float index : indices)
      if (!(index >= 0 && index < static_cast<float>(x.size(axis)) && index == std::floor(index)))
        throw std::invalid_argument("a Resize has an index outside its input");
    (input == 1 ? first : second) = at_indices(x, static_cast<size_t>(axis), indices, inner);
  }
  const std::span<const float> weights = table(3);
  weight.assign(weights.begin(), weights.end());
}

std::unique_ptr<Prepared> prepare_resize(const Context& context, const Operation& operation) {
  auto out = std::make_unique<PreparedResize>();
  const int axis = std::get<Resize>(operation.kind).axis;
  out->run = context.kernels.resize;
  out->inner = best_inner({&operation.inputs[0]});
  View number = operation.output;
  for (int d = 0; d < number.rank(); ++d) number.dims[static_cast<size_t>(d)] = {{operation.output.size(d), d == axis ? 1 : 0}};
  const Access weights = access(number, out->inner);
  out->point_weight = weights.points;
  out->inner_weight = weights.inner;
  out->epilogue = prepare_stages(operation.epilogue, operation.output, out->inner);
  return out;
}

}  // namespace df::network
