#include "network/network.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "threads/pool.h"

namespace df::network {
namespace {

// Samples computed together: as many as keep their activations in this many bytes. More would reread the weights less often and the
// caches less well.
constexpr int64_t kSubBatchBytes = int64_t{4} << 20;

float* row_data(const RowHandle& row) { return row == nullptr ? nullptr : row->values.data(); }

}  // namespace

Network::Network(std::span<const int64_t> words, const ConstantSource& constants, const Kernels& kernels, Precision precision,
                 std::span<const int64_t> exact, int64_t budget)
    : kernels_(kernels),
      precision_(precision),
      program_(decode(words)),
      memory_(plan_memory(program_)),
      places_(memory_.places),
      budget_(budget) {
  const FloatMode mode;
  for (const int64_t input : program_.inputs) sizes_.push_back(program_.buffers[static_cast<size_t>(input)].size);
  output_size_ = program_.buffers[static_cast<size_t>(program_.output.buffer)].size;
  load(constants, exact);
  shared_ = new Shared(budget, fork_count());  // last: what is thrown above would not free it
}

Network::~Network() { delete shared_.load(); }

// A fork may leave the parent's lock held in the child for ever. The child abandons what its parent shared, as the thread pool
// does.
Network::Shared& Network::shared() {
  Shared* now = shared_.load(std::memory_order_acquire);
  const int forks = fork_count();
  if (now->forks == forks) return *now;
  auto made = std::make_unique<Shared>(budget_, forks);
  if (shared_.compare_exchange_strong(now, made.get(), std::memory_order_acq_rel)) return *made.release();
  return *now;
}

// Prepares and loads all operations in order, and runs those that depend on nothing.
void Network::load(const ConstantSource& source, std::span<const int64_t> exact) {
  LoadedConstants constants(program_, source, places_);
  int64_t expected = 0;
  for (const Buffer& buffer : program_.buffers) expected += buffer.level == kConstant ? buffer.size : 0;
  weights_ = std::make_unique<Arena>(expected);
  for (size_t i = 0; i < program_.operations.size(); ++i) {
    const Operation& op = program_.operations[i];
    try {
      const bool as_float32 = std::ranges::find(exact, static_cast<int64_t>(i)) != exact.end();
      const int level = stage_of(program_.buffers[static_cast<size_t>(op.output.buffer)].level);
      Arena once(0);  // what runs once keeps nothing
      const Precision precision = as_float32 ? Precision::kFloat32 : precision_;
      const Context context{program_, places_, kernels_, precision, level == kConstant ? &once : weights_.get()};
      auto prepared = prepare(context, op);
      constants.begin(op);
      prepared->load(context, op);
      if (level == kConstant) {
        run_constant(*prepared, op.output.buffer, constants.output(op));
      } else {
        operations_[level].push_back(std::move(prepared));
      }
      constants.end(op);
    } catch (const std::invalid_argument& reason) {
      throw std::invalid_argument("operation " + std::to_string(i) + " (" + kKindNames[op.kind.index()] + "): " + reason.what());
    }
  }
  fixed_ = constants.take();
}

void Network::run_constant(const Prepared& operation, int64_t buffer, float* output) const {
  // The output is fixed, so it is written through a place of its own.
  std::vector<Place> places = places_;
  places[static_cast<size_t>(buffer)] = {nullptr, kTimeRow, 0};
  const char* error = nullptr;
  Rows rows;
  rows.count = 1;
  rows.places = places.data();
  rows.slots[kTimeRow] = &output;
  rows.error = &error;
  const Floats scratch(operation.scratch(1));
  operation.run(operation, rows, scratch.data());
  if (error != nullptr) throw std::invalid_argument(error);
}

const char* Network::run_operations(const Operations& operations, const Rows& rows, float* scratch, Stop* stop) const {
  for (const auto& op : operations) {
    if (stop != nullptr && stop->requested()) return nullptr;
    op->run(*op, rows, scratch);
    if (*rows.error != nullptr) return *rows.error;
  }
  return nullptr;
}

std::shared_ptr<Row> Network::new_row(int level) {
  auto row = std::make_shared<Row>();
  row->id = next_id_.fetch_add(1);
  row->values = Floats(memory_.size[level]);
  return row;
}

// Runs the operations of a level on new rows.
std::vector<RowHandle> Network::compute(int level, const std::vector<float*>& times, const std::vector<float*>& conditions,
                                        const std::vector<std::shared_ptr<Row>>& rows) const {
  const auto count = static_cast<int64_t>(rows.size());
  const Operations& operations = operations_[level];
  std::vector<float*> own;
  for (const auto& row : rows) own.push_back(row->values.data());
  int64_t floats = 0;
  for (const auto& op : operations) floats = std::max(floats, op->scratch(std::min(count, kMostRows)));
  const Floats scratch(floats);
  for (int64_t first = 0; first < count; first += kMostRows) {
    const char* error = nullptr;
    Rows part;
    part.count = std::min(kMostRows, count - first);
    part.places = places_.data();
    part.error = &error;
    if (!times.empty()) part.slots[kTimeRow] = times.data() + first;
    if (!conditions.empty()) part.slots[kConditionRow] = conditions.data() + first;
    part.slots[level == kTime ? kTimeRow : level == kCondition ? kConditionRow : kPairRow] = own.data() + first;
    if (run_operations(operations, part, scratch.data(), nullptr) != nullptr) throw std::runtime_error(error);
  }
  return {rows.begin(), rows.end()};
}

std::vector<RowHandle> Network::prepare_times(const float* times, int64_t count) {
  const FloatMode mode;
  const int64_t size = sizes_[1];
  const Place& place = places_[static_cast<size_t>(program_.inputs[1])];
  const auto compute_at = [&](std::span<const size_t> which) {
    std::vector<std::shared_ptr<Row>> made;
    for (const size_t i : which) {
      made.push_back(new_row(kTime));
      std::memcpy(made.back()->values.data() + place.offset, times + static_cast<int64_t>(i) * size,
                  static_cast<size_t>(size) * sizeof(float));
    }
    return compute(kTime, {}, {}, made);
  };
  std::vector<size_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), size_t{0});
  if (size != 1) return compute_at(all);  // only single times are kept
  std::vector<RowCache::Key> keys;
  for (int64_t i = 0; i < count; ++i) keys.push_back({kTime, std::bit_cast<uint32_t>(times[i]), 0});
  return shared().rows.get(keys, compute_at);
}

std::vector<RowHandle> Network::prepare_conditions(const float* const* conditions, int64_t count) {
  const FloatMode mode;
  std::vector<RowCache::Key> keys;
  for (int64_t i = 0; i < count; ++i) {
    RowCache::Key& key = keys.emplace_back(RowCache::Key{kCondition, 0, 0});
    for (size_t k = 2; k < sizes_.size(); ++k)
      key.bytes.append(reinterpret_cast<const char*>(conditions[k - 2] + i * sizes_[k]),
                       static_cast<size_t>(sizes_[k]) * sizeof(float));
  }
  return shared().rows.get(keys, [&](std::span<const size_t> which) {
    std::vector<std::shared_ptr<Row>> made;
    for (const size_t i : which) {
      made.push_back(new_row(kCondition));
      for (size_t k = 2; k < sizes_.size(); ++k) {
        const Place& place = places_[static_cast<size_t>(program_.inputs[k])];
        std::memcpy(made.back()->values.data() + place.offset, conditions[k - 2] + static_cast<int64_t>(i) * sizes_[k],
                    static_cast<size_t>(sizes_[k]) * sizeof(float));
      }
    }
    return compute(kCondition, {}, {}, made);
  });
}

// The rows of the pairs of a batch: known ones, and those that are missing in one go.
std::vector<RowHandle> Network::pairs(const RowHandle* times, const RowHandle* conditions, int64_t batch) {
  if (operations_[kPair].empty()) return std::vector<RowHandle>(static_cast<size_t>(batch));
  std::vector<RowCache::Key> keys;
  for (int64_t i = 0; i < batch; ++i) keys.push_back({kPair, times[i]->id, conditions == nullptr ? 0 : conditions[i]->id});
  return shared().rows.get(keys, [&](std::span<const size_t> which) {
    std::vector<std::shared_ptr<Row>> made;
    std::vector<float*> time_rows, condition_rows;
    for (const size_t i : which) {
      made.push_back(new_row(kPair));
      time_rows.push_back(row_data(times[i]));
      condition_rows.push_back(conditions == nullptr ? nullptr : row_data(conditions[i]));
    }
    return compute(kPair, time_rows, condition_rows, made);
  });
}

bool Network::run(const float* x, const int64_t* x_row, float* y, const RowHandle* times, const RowHandle* conditions,
                  int64_t batch, int threads, Stop* stop) {
  if (batch < 1) return true;
  const FloatMode mode;
  const std::vector<RowHandle> pair_rows = pairs(times, conditions, batch);
  // By slot, then by sample.
  std::vector<float*> slots[kSlots];
  for (auto& slot : slots) slot.resize(static_cast<size_t>(batch), nullptr);
  for (int64_t i = 0; i < batch; ++i) {
    const auto at = static_cast<size_t>(i);
    slots[kTimeRow][at] = row_data(times[i]);
    if (conditions != nullptr) slots[kConditionRow][at] = row_data(conditions[i]);
    slots[kPairRow][at] = row_data(pair_rows[at]);
    slots[kInputRow][at] = const_cast<float*>(x) + (x_row == nullptr ? i : x_row[i]) * sizes_[0];
    slots[kOutputRow][at] = y + i * output_size_;
  }

  const int64_t row_floats = memory_.row;
  const int64_t fit = std::max<int64_t>(1, kSubBatchBytes / (row_floats * static_cast<int64_t>(sizeof(float)) + 1));
  // Several for each thread, so that a slower core gets fewer.
  const int64_t share = threads > 1 ? (batch + 3 * threads - 1) / (3 * threads) : batch;
  const int64_t part = std::min({fit, share, kMostRows}), parts = (batch + part - 1) / part;
  const int workers = static_cast<int>(std::min<int64_t>(threads, parts));
  const int inner = batch == 1 ? std::max(threads, 1) : 1;  // threads share the operations of a sample that is alone
  int64_t scratch = 0;
  for (const auto& op : operations_[kSample]) scratch = std::max(scratch, op->scratch(part));
  const int64_t needed = part * row_floats + inner * round_up(scratch);

  Shared& shared = this->shared();
  std::vector<Floats> spaces;
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    while (static_cast<int>(spaces.size()) < workers && !shared.idle.empty()) {
      spaces.push_back(std::move(shared.idle.back()));
      shared.idle.pop_back();
    }
  }
  spaces.resize(static_cast<size_t>(workers));
  for (Floats& space : spaces)
    if (space.size() < needed) space = Floats(needed);

  std::mutex taking;
  std::vector<float*> free;
  for (const Floats& space : spaces) free.push_back(space.data());
  std::atomic<const char*> failed{nullptr};
  df::run(parts, workers, [&](int64_t n) {
    float* space;
    {
      const std::lock_guard<std::mutex> lock(taking);
      space = free.back();
      free.pop_back();
    }
    const int64_t first = n * part;
    const char* error = nullptr;
    Rows rows;
    rows.count = std::min(part, batch - first);
    rows.places = places_.data();
    rows.error = &error;
    rows.threads = inner;
    rows.helper_size = round_up(scratch);
    rows.helpers = space + part * row_floats + rows.helper_size;
    for (int64_t i = 0; i < rows.count; ++i) slots[kSampleRow][static_cast<size_t>(first + i)] = space + i * row_floats;
    for (int slot = 0; slot < kSlots; ++slot) rows.slots[slot] = slots[slot].data() + first;
    if (run_operations(operations_[kSample], rows, space + part * row_floats, stop) != nullptr) failed = error;
    const std::lock_guard<std::mutex> lock(taking);
    free.push_back(space);
  });
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    for (Floats& space : spaces) shared.idle.push_back(std::move(space));
  }
  if (const char* error = failed.load()) throw std::runtime_error(error);
  return stop == nullptr || !stop->requested();
}

}  // namespace df::network
