// The loop: samples in flight, each at its own row of its own plan, with one joint call of the network per tick.
//
// A slot holds one sample. admit() puts a request into a slot and retire() frees it, both between rows. Slots own the memory of
// the state, the registers and the network's outputs. They are for one thread at a time.

#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "network/network.h"
#include "step/cpu/kernels.h"
#include "step/prepared_rows.h"
#include "threads/stop.h"

namespace df::loop {

// A plan as the loop runs it. It does not change, and slots share it.
struct Plan {
  std::vector<Row> rows;
  std::vector<float> times;  // of each row; only a row that calls the network has one that is read
  int registers = 0;
};

// One sample to draw. The caller writes its start to the slot's part of state().
struct Request {
  std::shared_ptr<const Plan> plan;
  uint64_t seed = 0;
  uint32_t index = 0;
  network::RowHandle conditions[kMaxOutputs];  // of each network output that the plan reads; null without conditioning inputs
  bool known = false;                          // whether known() and mask() of the slot hold a known region
};

class Slots {
 public:
  enum class Result {
    kAdvanced,   // at least one slot advanced
    kDone,       // every slot was done before the call
    kNotFinite,  // as kAdvanced, and bad() names the samples for which the network returned NaN or Inf
    kStopped,    // a stop was requested: no slot advanced by the row that was in work
  };
  struct Bad {
    int64_t slot, row;
  };

  // `threads`: for a call of the network; 0 is num_threads(). The network outlives the slots.
  Slots(network::Network& network, const Kernel& kernel, int64_t capacity, int threads);

  int64_t capacity() const { return capacity_; }
  int64_t elements() const { return elements_; }
  float* state() { return state_.data(); }           // (capacity, elements)
  float* known() { return known_memory().data(); }   // (capacity, elements): the known region's data
  float* mask() { return known() + state_.size(); }  // (capacity, elements): and where it is known
  // (capacity, elements). Throws std::out_of_range if no plan that was admitted has that register.
  float* register_data(int number) { return registers_.at(static_cast<size_t>(number)).data(); }

  // Throws std::invalid_argument if a row needs what the slots do not have: a register beyond the plan's, a known region, a
  // variance.
  void admit(int64_t slot, const Request& request);
  void retire(int64_t slot);

  bool done(int64_t slot) const { return at(slot) >= row_count(slot); }
  int64_t at(int64_t slot) const { return slots_[static_cast<size_t>(slot)].at; }  // the number of its next row

  // Advances the slots by one row: those whose row calls no network if there are any, else all that are not done, with one call of
  // the network. Throws std::runtime_error if the network fails.
  Result row(Stop& stop);
  // Rows up to the next call of the network.
  Result tick(Stop& stop);
  // Ticks until every slot is done or something else ends them: kDone, kNotFinite or kStopped.
  Result run(Stop& stop);
  // Of the last row.
  const std::vector<Bad>& bad() const { return bad_; }

 private:
  // A plan whose rows have been checked against the slots' memory.
  struct BoundPlan {
    std::shared_ptr<const Plan> plan;
    std::vector<PreparedRow> rows;
  };
  struct Slot {
    std::shared_ptr<const BoundPlan> plan;  // null: free
    int64_t at = 0;
    network::RowHandle conditions[kMaxOutputs];
  };

  int64_t row_count(int64_t slot) const {
    const Slot& s = slots_[static_cast<size_t>(slot)];
    return s.plan == nullptr ? 0 : static_cast<int64_t>(s.plan->rows.size());
  }
  std::shared_ptr<const BoundPlan> bind(const std::shared_ptr<const Plan>& plan);
  network::Floats& known_memory();
  Result advance(Stop& stop, bool& called);
  void gather(bool calling);
  bool call_network(Stop& stop);

  network::Network& network_;
  const Kernel& kernel_;
  const int64_t capacity_, elements_, output_size_;
  const int threads_;
  network::Floats state_, outputs_, known_;
  std::vector<network::Floats> registers_;
  std::vector<Slot> slots_;
  std::vector<Sample> samples_;  // by slot

  // Of the row in work, kept for their memory.
  std::vector<int64_t> active_;
  std::vector<Sample> active_samples_;
  std::vector<int64_t> evaluated_slot_;  // by evaluation
  std::vector<float> times_;             // by evaluation
  std::vector<network::RowHandle> condition_rows_;
  std::vector<uint8_t> bad_flags_;
  std::vector<Bad> bad_;
};

}  // namespace df::loop
