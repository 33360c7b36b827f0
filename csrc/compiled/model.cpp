#include "compiled/model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "threads/pool.h"

namespace df::compiled {
namespace {

// The network of a file. The validator accepted its program; what remains is what only loading shows.
network::Network load(const Contents& contents, const network::Kernels& kernels) {
  try {
    return network::Network(contents.words, contents.constants, kernels, contents.precision, contents.exact);
  } catch (const std::invalid_argument& error) {
    throw FileError(std::string("the network cannot be loaded: ") + error.what());
  }
}

template <class T>
void convert(const Input& input, const unsigned char* from, std::span<float> out) {
  for (float& number : out) {
    T value;
    std::memcpy(&value, from, sizeof value);
    from += sizeof value;
    const auto real = static_cast<double>(value);
    if (input.classes >= 0 && !(real >= 0 && real < static_cast<double>(input.classes)) && !(input.null && real == *input.null))
      throw std::invalid_argument("the input '" + input.name + "' has the label " + std::to_string(value) +
                                  "; labels are from 0 to " + std::to_string(input.classes - 1));
    number = static_cast<float>(value);
  }
}

}  // namespace

std::vector<float> floats_of(const Input& input, const Value& value, int64_t count) {
  const size_t one = static_cast<size_t>(input.elements) * size_of(input.type), all = one * static_cast<size_t>(count);
  if (value.data == nullptr || (value.bytes != one && value.bytes != all))
    throw std::invalid_argument("the input '" + input.name + "' has " + std::to_string(value.data == nullptr ? 0 : value.bytes) +
                                " bytes; give " + std::to_string(one) + " for all samples alike, or " + std::to_string(all) +
                                " for " + std::to_string(count) + " samples");
  std::vector<float> out(static_cast<size_t>(count * input.elements));
  const auto* from = static_cast<const unsigned char*>(value.data);
  const std::span<float> given(out.data(), value.bytes / size_of(input.type));
  switch (input.type) {
    case Type::kFloat32: convert<float>(input, from, given); break;
    case Type::kInt64: convert<int64_t>(input, from, given); break;
    case Type::kInt32: convert<int32_t>(input, from, given); break;
    case Type::kBool:
      for (float& number : given) number = *from++ != 0 ? 1.0f : 0.0f;
      break;
  }
  for (size_t at = given.size(); at < out.size(); ++at) out[at] = out[at - given.size()];
  return out;
}

Model::Model(Contents contents, const Kernel& kernel, const network::Kernels& kernels)
    : kernel_(kernel),
      description_(std::move(contents.description)),
      plan_(std::move(contents.plan)),
      initial_scale_(contents.initial_scale),
      outputs_(contents.outputs),
      network_(load(contents, kernels)) {
  try {
    loop::Slots(network_, kernel_, 1, 1).admit(0, {plan_, 0, 0, {}, false});  // checks the rows
  } catch (const std::invalid_argument& error) {
    throw FileError(std::string("the plan is not valid: ") + error.what());
  }
}

std::vector<network::RowHandle> Model::prepare(std::span<const Value> values, int64_t count) {
  std::vector<std::vector<float>> inputs;
  std::vector<const float*> data;
  for (const Input& input : description_.inputs) {
    const auto given = std::ranges::find(values, input.name, &Value::name);
    if (given != values.end()) {
      inputs.push_back(floats_of(input, *given, count));
    } else if (input.null) {
      inputs.emplace_back(static_cast<size_t>(count * input.elements), static_cast<float>(*input.null));
    } else {
      throw std::invalid_argument("the input '" + input.name + "' is missing, and has no null value");
    }
    data.push_back(inputs.back().data());
  }
  if (data.empty()) return std::vector<network::RowHandle>(static_cast<size_t>(count));
  return network_.prepare_conditions(data.data(), count);
}

Outcome Model::sample(const Draw& draw, float* out, Stop& stop) {
  const FloatMode mode;
  const auto count = static_cast<int64_t>(draw.seeds.size());
  for (const Value& value : draw.values) {
    const auto named = [&](const auto& other) { return other.name == value.name; };
    if (std::ranges::none_of(description_.inputs, named))
      throw std::invalid_argument("the model has no conditioning input '" + std::string(value.name) + "'");
    if (std::ranges::count_if(draw.values, named) > 1)
      throw std::invalid_argument("the input '" + std::string(value.name) + "' is given twice");
  }
  const auto conditions = prepare(draw.values, count);
  const network::RowHandle null = outputs_ == 1 ? nullptr : prepare({}, 1)[0];
  loop::Slots slots(network_, kernel_, count, draw.threads);
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    slots.admit(i, {plan_, draw.seeds[at], draw.indices[at], {conditions[at], null, nullptr}, false});
  }
  run_normals(kernel_, slots.state(), count, slots.elements(), 0, draw.seeds.data(), draw.indices.data(), 0, kStreamInitial,
              initial_scale_);
  switch (slots.run(stop)) {
    case loop::Slots::Result::kStopped: return {Outcome::kStopped};
    case loop::Slots::Result::kNotFinite: return {Outcome::kNotFinite, slots.bad()[0].slot, slots.bad()[0].row};
    default: break;
  }
  std::memcpy(out, slots.state(), static_cast<size_t>(count * slots.elements()) * sizeof(float));
  return {};
}

}  // namespace df::compiled
