// A network that runs: a program with its weights, ready on one instruction set.
//
// What depends on the time alone is computed once per time, what depends on the conditioning alone once per condition, and what
// depends on both once per pair (prepare_times, prepare_conditions, and inside run for pairs). The results are rows: read-only,
// reference-counted, valid for the network that made them, and for any thread.
//
// run() evaluates any mix of them. A sample's bits depend on its own input, time and condition only: not on the batch, its place in
// it, the number of threads or the instruction set. A NaN stays in its sample.
//
// Every function may be called from any thread, and in a forked child, also if the fork happened during a call.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "network/constants.h"
#include "network/memory.h"
#include "network/operation.h"
#include "network/operations/prepared.h"
#include "network/rows.h"
#include "threads/stop.h"

namespace df::network {

class Network {
 public:
  // Loads a program. `constants` gives its weights and folded constants while it is loaded; they are copied or packed, not kept.
  // `exact` lists operations, by index, that compute as in float32 whatever the precision.
  // `budget` bounds the bytes of rows that are kept for later while nobody holds them (rows.h). It changes no bits.
  // Throws std::invalid_argument for a program that is not valid, does not fit the constants, or cannot run.
  Network(std::span<const int64_t> words, const ConstantSource& constants, const Kernels& kernels,
          Precision precision = Precision::kFloat32, std::span<const int64_t> exact = {}, int64_t budget = int64_t{64} << 20);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  int64_t input_size(size_t input) const { return sizes_[input]; }  // elements of one row: sample, time, conditioning
  size_t inputs() const { return sizes_.size(); }
  int64_t output_size() const { return output_size_; }
  int64_t row_bytes() const { return memory_.row * static_cast<int64_t>(sizeof(float)); }  // activations of one sample
  const Kernels& kernels() const { return kernels_; }

  // A row for each time (input_size(1) floats each).
  std::vector<RowHandle> prepare_times(const float* times, int64_t count);
  // A row for each condition: input i is conditions[i], (count, input_size(2 + i)). Equal conditions share one.
  std::vector<RowHandle> prepare_conditions(const float* const* conditions, int64_t count);

  // y[i] = network(x[x_row[i]], times[i], conditions[i]) for i below `batch`; x_row null is i, and without conditioning inputs
  // `conditions` is null. x and y must not overlap. Returns false if a stop was requested; then y is not complete.
  // Throws std::runtime_error if an index of a Gather is outside its table.
  bool run(const float* x, const int64_t* x_row, float* y, const RowHandle* times, const RowHandle* conditions, int64_t batch,
           int threads, Stop* stop = nullptr);

 private:
  using Operations = std::vector<std::unique_ptr<Prepared>>;

  void load(const ConstantSource& constants, std::span<const int64_t> exact);
  void run_constant(const Prepared& operation, int64_t buffer, float* output) const;
  std::vector<RowHandle> compute(int level, const std::vector<float*>& times, const std::vector<float*>& conditions,
                                 const std::vector<std::shared_ptr<Row>>& rows) const;
  std::vector<RowHandle> pairs(const RowHandle* times, const RowHandle* conditions, int64_t batch);
  std::shared_ptr<Row> new_row(int level);
  const char* run_operations(const Operations& operations, const Rows& rows, float* scratch, Stop* stop) const;

  const Kernels& kernels_;
  const Precision precision_;
  Program program_;
  MemoryPlan memory_;
  std::vector<Place> places_;
  std::unique_ptr<Arena> weights_;      // packed
  std::vector<Floats> fixed_;           // constants that operations read as they are
  Operations operations_[kSample + 1];  // by level
  std::vector<int64_t> sizes_;
  int64_t output_size_ = 0;

  // What calls share.
  struct Shared {
    Shared(int64_t budget, int count) : forks(count), rows(budget) {}
    const int forks;  // fork_count() of the process that it belongs to
    RowCache rows;    // of times, conditions and pairs
    std::mutex mutex;
    std::vector<Floats> idle;  // workspaces, under the lock
  };
  Shared& shared();

  const int64_t budget_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<Shared*> shared_{nullptr};
};

}  // namespace df::network
