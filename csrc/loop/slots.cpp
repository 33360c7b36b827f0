#include "loop/slots.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "threads/pool.h"

namespace df::loop {
namespace {

// Whether the row needs network output j. The variance is a part of output 0.
bool needs_output(const PreparedRow& row, int j) { return reads_output(row, j) || (j == 0 && (row.terms & kLearnedS) != 0); }

}  // namespace

Slots::Slots(network::Network& network, const Kernel& kernel, int64_t capacity, int threads)
    : network_(network),
      kernel_(kernel),
      capacity_(capacity),
      elements_(network.input_size(0)),
      output_size_(network.output_size()),
      threads_(threads),
      state_(capacity * elements_),
      slots_(static_cast<size_t>(capacity)),
      samples_(static_cast<size_t>(capacity)) {
  if (network.input_size(1) != 1) throw std::invalid_argument("the network takes more than one time for a sample");
  for (int64_t i = 0; i < capacity; ++i) {
    Sample& sample = samples_[static_cast<size_t>(i)];
    sample = Sample{};
    sample.x = sample.out = state_.data() + i * elements_;
  }
}

network::Floats& Slots::known_memory() {
  if (known_.size() == 0) known_ = network::Floats(2 * state_.size());
  return known_;
}

std::shared_ptr<const Slots::BoundPlan> Slots::bind(const std::shared_ptr<const Plan>& plan) {
  for (const Slot& slot : slots_)
    if (slot.plan != nullptr && slot.plan->plan == plan) return slot.plan;
  // What the rows need is checked by its presence; the addresses are those of each sample.
  Buffers buffers;
  buffers.x = buffers.out = state_.data();
  std::fill(std::begin(buffers.outputs), std::end(buffers.outputs), state_.data());
  buffers.variance_offset = output_size_ >= 2 * elements_ ? elements_ : -1;
  buffers.registers = plan->registers > 0 ? state_.data() : nullptr;
  buffers.register_count = plan->registers;
  BoundPlan bound{plan, prepare_rows(plan->rows.data(), static_cast<int64_t>(plan->rows.size()), buffers)};
  while (static_cast<int>(registers_.size()) < std::min(plan->registers, kMaxRegisters)) {
    registers_.emplace_back(state_.size());
    for (int64_t i = 0; i < capacity_; ++i)
      samples_[static_cast<size_t>(i)].h[registers_.size() - 1] = registers_.back().data() + i * elements_;
  }
  return std::make_shared<const BoundPlan>(std::move(bound));
}

void Slots::admit(int64_t number, const Request& request) {
  const auto i = static_cast<size_t>(number);
  std::shared_ptr<const BoundPlan> plan = bind(request.plan);
  Slot& slot = slots_[i];
  Sample& sample = samples_[i];
  slot.plan = std::move(plan);
  slot.at = 0;
  std::copy(std::begin(request.conditions), std::end(request.conditions), slot.conditions);
  sample.seed = request.seed;
  sample.index = request.index;
  sample.y = request.known ? known() + number * elements_ : nullptr;
  sample.mask = request.known ? mask() + number * elements_ : nullptr;
}

void Slots::retire(int64_t slot) { slots_[static_cast<size_t>(slot)] = Slot{}; }

Slots::Result Slots::row(Stop& stop) {
  bool called = false;
  return advance(stop, called);
}

Slots::Result Slots::tick(Stop& stop) {
  for (bool advanced = false;; advanced = true) {
    bool called = false;
    const Result result = advance(stop, called);
    if (result == Result::kDone && advanced) return Result::kAdvanced;
    if (result != Result::kAdvanced || called) return result;
  }
}

Slots::Result Slots::run(Stop& stop) {
  for (;;) {
    const Result result = row(stop);
    if (result != Result::kAdvanced) return result;
  }
}

Slots::Result Slots::advance(Stop& stop, bool& called) {
  bad_.clear();
  if (stop.requested()) return Result::kStopped;
  gather(false);
  called = active_.empty();
  if (called) gather(true);
  if (active_.empty()) return Result::kDone;
  if (called && !call_network(stop)) return Result::kStopped;

  bad_flags_.assign(active_.size(), 0);
  run_step(kernel_, {active_samples_.data(), static_cast<int64_t>(active_.size()), elements_, 0, DType::kFloat32, DType::kFloat32,
                     bad_flags_.data()});
  for (size_t i = 0; i < active_.size(); ++i) {
    int64_t& row = slots_[static_cast<size_t>(active_[i])].at;
    if (bad_flags_[i] != 0) bad_.push_back({active_[i], row});
    ++row;
  }
  return bad_.empty() ? Result::kAdvanced : Result::kNotFinite;
}

// The slots whose next row calls the network, or those whose next row does not.
void Slots::gather(bool calling) {
  active_.clear();
  active_samples_.clear();
  for (int64_t i = 0; i < capacity_; ++i) {
    if (done(i)) continue;
    const Slot& slot = slots_[static_cast<size_t>(i)];
    const PreparedRow& row = slot.plan->rows[static_cast<size_t>(slot.at)];
    if ((row.row.calls_network != 0) != calling) continue;
    active_.push_back(i);
    Sample& sample = active_samples_.emplace_back(samples_[static_cast<size_t>(i)]);
    sample.row = &row;
    sample.noise_row = static_cast<uint32_t>(slot.at);
  }
}

// Evaluates what the rows of the active slots read; false if a stop was requested.
bool Slots::call_network(Stop& stop) {
  evaluated_slot_.clear();
  times_.clear();
  condition_rows_.clear();
  for (size_t i = 0; i < active_.size(); ++i) {
    const Slot& slot = slots_[static_cast<size_t>(active_[i])];
    for (int j = 0; j < kMaxOutputs; ++j) {
      if (!needs_output(*active_samples_[i].row, j)) continue;
      evaluated_slot_.push_back(active_[i]);
      times_.push_back(slot.plan->plan->times[static_cast<size_t>(slot.at)]);
      condition_rows_.push_back(slot.conditions[j]);
    }
  }
  const auto evaluations = static_cast<int64_t>(evaluated_slot_.size());
  if (outputs_.size() < evaluations * output_size_) outputs_ = network::Floats(evaluations * output_size_);
  const std::vector<network::RowHandle> time_rows = network_.prepare_times(times_.data(), evaluations);
  if (!network_.run(state_.data(), evaluated_slot_.data(), outputs_.data(), time_rows.data(),
                    network_.inputs() > 2 ? condition_rows_.data() : nullptr, evaluations, threads_ < 1 ? num_threads() : threads_,
                    &stop))
    return false;

  const float* output = outputs_.data();
  for (Sample& sample : active_samples_) {
    for (int j = 0; j < kMaxOutputs; ++j) {
      if (!needs_output(*sample.row, j)) continue;
      sample.m[j] = output;
      if (j == 0 && output_size_ >= 2 * elements_) sample.v = output + elements_;
      output += output_size_;
    }
  }
  return true;
}

}  // namespace df::loop
