#include "network/constants.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace df::network {
namespace {

const Buffer& buffer_of(const Program& program, const View& view) { return program.buffers[static_cast<size_t>(view.buffer)]; }

// Calls fn(view, whether the operation reads it when it runs) for all that the operation reads.
template <class Fn>
void each_read(const Operation& op, Fn&& fn) {
  const bool packs = std::holds_alternative<Convolution>(op.kind) || std::holds_alternative<Linear>(op.kind) ||
                     std::holds_alternative<Resize>(op.kind);
  for (size_t i = 0; i < op.inputs.size(); ++i) fn(op.inputs[i], i == 0 || !packs);
  for (const auto* stages : {&op.prologue, &op.epilogue})
    for (const Stage& stage : *stages)
      if (stage.type == Stage::kOperand) fn(stage.operand, true);
}

}  // namespace

ConstantSource in_memory(std::span<const std::span<const float>> constants) {
  return {constants.size(), [constants](size_t number) { return GivenConstant{constants[number], nullptr}; }};
}

std::vector<bool> read_while_running(const Program& program) {
  std::vector<bool> out(program.buffers.size(), false);
  for (const Operation& op : program.operations) {
    if (buffer_of(program, op.output).level == kConstant) continue;
    each_read(op, [&](const View& view, bool runs) {
      if (runs && buffer_of(program, view).level == kConstant) out[static_cast<size_t>(view.buffer)] = true;
    });
  }
  return out;
}

template <class Fn>
void LoadedConstants::each(const Operation& operation, Fn&& fn) {
  const auto constant = [&](const View& view) {
    if (buffer_of(program_, view).level == kConstant) fn(static_cast<size_t>(view.buffer));
  };
  each_read(operation, [&](const View& view, bool) { constant(view); });
  constant(operation.output);
}

LoadedConstants::LoadedConstants(const Program& program, const ConstantSource& source, std::vector<Place>& places)
    : program_(program), source_(source), places_(places), constants_(program.buffers.size()) {
  const std::vector<bool> kept = read_while_running(program);
  size_t given = 0;
  for (size_t b = 0; b < constants_.size(); ++b) {
    constants_[b].kept = kept[b];
    if (program.buffers[b].source != Source::kMemory) constants_[b].number = given++;
  }
  if (given != source.count)
    throw std::invalid_argument("the program has " + std::to_string(given) + " constants, and " + std::to_string(source.count) +
                                " were given");
  for (const Operation& op : program.operations) each(op, [&](size_t b) { ++constants_[b].uses; });
}

void LoadedConstants::begin(const Operation& operation) {
  each(operation, [&](size_t b) {
    if (places_[b].fixed == nullptr) load(b);
  });
}

void LoadedConstants::end(const Operation& operation) {
  each(operation, [&](size_t b) {
    Constant& constant = constants_[b];
    if (--constant.uses > 0 || constant.kept) return;
    places_[b].fixed = nullptr;
    constant.given = {};
    constant.values = {};
  });
}

void LoadedConstants::load(size_t buffer) {
  Constant& constant = constants_[buffer];
  const int64_t size = program_.buffers[buffer].size;
  if (program_.buffers[buffer].source == Source::kMemory) {  // an operation computes it
    constant.values = Floats(size);
    places_[buffer].fixed = constant.values.data();
    return;
  }
  constant.given = source_.get(constant.number);
  const std::span<const float> values = constant.given.values;
  if (static_cast<int64_t>(values.size()) != size)
    throw std::invalid_argument("constant " + std::to_string(constant.number) + " has " + std::to_string(values.size()) +
                                " elements and the program expects " + std::to_string(size));
  places_[buffer].fixed = values.data();
  if (!constant.kept) return;
  constant.values = Floats(size);
  std::memcpy(constant.values.data(), values.data(), values.size_bytes());
  places_[buffer].fixed = constant.values.data();
  constant.given = {};
}

std::vector<Floats> LoadedConstants::take() {
  std::vector<Floats> out;
  for (Constant& constant : constants_)
    if (constant.kept) out.push_back(std::move(constant.values));
  return out;
}

}  // namespace df::network
