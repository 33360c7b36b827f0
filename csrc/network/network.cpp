#include "network/network.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "threads/pool.h"

namespace df::network {
namespace {

// Samples computed together: as many as keep their activations in this many bytes. More would reread the weights less often and the
// caches less well.
constexpr int64_t kSubBatchBytes = int64_t{4} << 20;

float* row_data(const RowHandle& row) { return row == nullptr ? nullptr : row->values.data(); }

}  // namespace

RowHandle RowCache::find(const Key& key) {
  const auto found = at_.find(key);
  if (found == at_.end()) return nullptr;
  order_.splice(order_.end(), order_, found->second);
  return found->second->second;
}

void RowCache::keep(const Key& key, RowHandle row) {
  const auto bytes = [](const RowHandle& r) { return r->values.size() * static_cast<int64_t>(sizeof(float)); };
  bytes_ += bytes(row);
  order_.emplace_back(key, std::move(row));
  at_[key] = std::prev(order_.end());
  while (bytes_ > budget_ && !order_.empty()) {
    bytes_ -= bytes(order_.front().second);
    at_.erase(order_.front().first);
    order_.pop_front();
  }
}

Network::Network(std::span<const int64_t> words, std::span<const std::span<const float>> constants, const Kernels& kernels,
                 Precision precision, int64_t budget)
    : kernels_(kernels),
      precision_(precision),
      program_(decode(words)),
      memory_(plan_memory(program_)),
      budget_(budget),
      shared_(new Shared(budget, fork_count())) {
  const FloatMode mode;
  places_ = memory_.places;
  for (const int64_t input : program_.inputs) sizes_.push_back(program_.buffers[static_cast<size_t>(input)].size);
  output_size_ = program_.buffers[static_cast<size_t>(program_.output.buffer)].size;
  run_constants(constants);
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

// Prepares all operations in order, and runs those that depend on nothing.
void Network::run_constants(std::span<const std::span<const float>> constants) {
  // Views of the given constants until they are packed; those that operations read as they are get copied.
  size_t given = 0;
  std::vector<bool> is_given(program_.buffers.size(), false);
  for (size_t b = 0; b < program_.buffers.size(); ++b) {
    const Buffer& buffer = program_.buffers[b];
    if (buffer.source == Source::kMemory) {
      if (buffer.level != kConstant) continue;
      fixed_.emplace_back(buffer.size);
      places_[b].fixed = fixed_.back().data();
      continue;
    }
    if (given == constants.size()) throw std::invalid_argument("the program has more constants than were given");
    if (static_cast<int64_t>(constants[given].size()) != buffer.size)
      throw std::invalid_argument("constant " + std::to_string(given) + " has " + std::to_string(constants[given].size()) +
                                  " elements and the program expects " + std::to_string(buffer.size));
    places_[b].fixed = constants[given++].data();
    is_given[b] = true;
  }
  if (given != constants.size()) throw std::invalid_argument("the program has fewer constants than were given");

  int64_t expected = 0;
  for (const auto& constant : constants) expected += static_cast<int64_t>(constant.size());
  weights_ = std::make_unique<Arena>(expected);
  const char* error = nullptr;
  Rows rows;
  rows.count = 1;
  rows.error = &error;
  for (size_t i = 0; i < program_.operations.size(); ++i) {
    const Operation& op = program_.operations[i];
    try {
      const int level = stage_of(program_.buffers[static_cast<size_t>(op.output.buffer)].level);
      Arena once(0);  // what runs once keeps nothing
      auto prepared = prepare({program_, places_, kernels_, precision_, level == kConstant ? once : *weights_}, op);
      if (level != kConstant) {
        operations_[level].push_back(std::move(prepared));
        continue;
      }
      // Its output is fixed, so it is written through a place of its own.
      std::vector<Place> places = places_;
      Place& out = places[static_cast<size_t>(op.output.buffer)];
      float* target = const_cast<float*>(out.fixed);
      out = {nullptr, kTimeRow, 0};
      rows.places = places.data();
      rows.slots[kTimeRow] = &target;
      Floats scratch(prepared->scratch(1));
      prepared->run(*prepared, rows, scratch.data());
      if (error != nullptr) throw std::invalid_argument(error);
    } catch (const std::invalid_argument& reason) {
      throw std::invalid_argument("operation " + std::to_string(i) + " (" + kKindNames[op.kind.index()] + "): " + reason.what());
    }
  }

  // Copies of the given constants that are still read: not weights, which are packed.
  for (const Operation& op : program_.operations) {
    if (stage_of(program_.buffers[static_cast<size_t>(op.output.buffer)].level) == kConstant) continue;
    const auto keep = [&](int64_t buffer) {
      const auto b = static_cast<size_t>(buffer);
      if (!is_given[b]) return;
      is_given[b] = false;
      Floats copy(program_.buffers[b].size);
      std::memcpy(copy.data(), places_[b].fixed, static_cast<size_t>(copy.size()) * sizeof(float));
      places_[b].fixed = copy.data();
      fixed_.push_back(std::move(copy));
    };
    const bool packed = std::holds_alternative<Convolution>(op.kind) || std::holds_alternative<Linear>(op.kind) ||
                        std::holds_alternative<Resize>(op.kind);
    for (size_t i = 0; i < (packed ? 1 : op.inputs.size()); ++i) keep(op.inputs[i].buffer);
    for (const auto* stages : {&op.prologue, &op.epilogue})
      for (const Stage& stage : *stages)
        if (stage.type == Stage::kOperand) keep(stage.operand.buffer);
  }
}

const char* Network::run_operations(const Operations& operations, const Rows& rows, float* scratch,
                                    const std::atomic<bool>* cancel) const {
  for (const auto& op : operations) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) return nullptr;
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
std::vector<RowHandle> Network::compute(int level, int64_t count, const std::vector<float*>& times,
                                        const std::vector<float*>& conditions, const std::vector<std::shared_ptr<Row>>& rows) {
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
  Shared& shared = this->shared();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  const int64_t size = sizes_[1];
  std::vector<RowHandle> out(static_cast<size_t>(count));
  std::vector<std::shared_ptr<Row>> made;
  std::vector<RowCache::Key> keys;
  std::map<RowCache::Key, size_t> new_keys;
  std::vector<std::pair<size_t, size_t>> later;  // entries of `out` that wait for made rows
  for (int64_t i = 0; i < count; ++i) {
    // Only single times are cached.
    uint32_t bits = 0;
    std::memcpy(&bits, times + i * size, sizeof bits);
    const RowCache::Key key{bits, 0};
    const auto at = static_cast<size_t>(i);
    if (size == 1) {
      if ((out[at] = shared.times.find(key)) != nullptr) continue;
      if (const auto found = new_keys.find(key); found != new_keys.end()) {
        later.emplace_back(at, found->second);
        continue;
      }
      new_keys[key] = made.size();
    }
    later.emplace_back(at, made.size());
    made.push_back(new_row(kTime));
    keys.push_back(key);
    const Place& place = places_[static_cast<size_t>(program_.inputs[1])];
    std::memcpy(made.back()->values.data() + place.offset, times + i * size, static_cast<size_t>(size) * sizeof(float));
  }
  const std::vector<RowHandle> rows = compute(kTime, static_cast<int64_t>(made.size()), {}, {}, made);
  for (const auto& [at, which] : later) out[at] = rows[which];
  for (size_t i = 0; i < rows.size() && size == 1; ++i) shared.times.keep(keys[i], rows[i]);
  return out;
}

std::vector<RowHandle> Network::prepare_conditions(const float* const* conditions, int64_t count) {
  const FloatMode mode;
  std::vector<std::shared_ptr<Row>> made;
  for (int64_t i = 0; i < count; ++i) {
    made.push_back(new_row(kCondition));
    for (size_t k = 2; k < sizes_.size(); ++k) {
      const Place& place = places_[static_cast<size_t>(program_.inputs[k])];
      std::memcpy(made.back()->values.data() + place.offset, conditions[k - 2] + i * sizes_[k],
                  static_cast<size_t>(sizes_[k]) * sizeof(float));
    }
  }
  return compute(kCondition, count, {}, {}, made);
}

// The rows of the pairs of a batch: known ones, and those that are missing in one go.
std::vector<RowHandle> Network::pairs(const RowHandle* times, const RowHandle* conditions, int64_t batch) {
  std::vector<RowHandle> out(static_cast<size_t>(batch));
  if (operations_[kPair].empty()) return out;
  Shared& shared = this->shared();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  std::map<RowCache::Key, size_t> new_keys;
  std::vector<std::shared_ptr<Row>> made;
  std::vector<float*> time_rows, condition_rows;
  std::vector<std::pair<size_t, size_t>> later;
  for (int64_t i = 0; i < batch; ++i) {
    const RowHandle condition = conditions == nullptr ? nullptr : conditions[i];
    const RowCache::Key key{times[i]->id, condition == nullptr ? 0 : condition->id};
    const auto at = static_cast<size_t>(i);
    if ((out[at] = shared.pairs.find(key)) != nullptr) continue;
    const auto [found, is_new] = new_keys.emplace(key, made.size());
    later.emplace_back(at, found->second);
    if (!is_new) continue;
    made.push_back(new_row(kPair));
    time_rows.push_back(row_data(times[i]));
    condition_rows.push_back(row_data(condition));
  }
  const std::vector<RowHandle> rows = compute(kPair, static_cast<int64_t>(made.size()), time_rows, condition_rows, made);
  for (const auto& [at, which] : later) out[at] = rows[which];
  for (const auto& [key, which] : new_keys) shared.pairs.keep(key, rows[which]);
  return out;
}

bool Network::run(const float* x, const int64_t* x_row, float* y, const RowHandle* times, const RowHandle* conditions,
                  int64_t batch, int threads, const std::atomic<bool>* cancel) {
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
    if (run_operations(operations_[kSample], rows, space + part * row_floats, cancel) != nullptr) failed = error;
    const std::lock_guard<std::mutex> lock(taking);
    free.push_back(space);
  });
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    for (Floats& space : spaces) shared.idle.push_back(std::move(space));
  }
  if (const char* error = failed.load()) throw std::runtime_error(error);
  return cancel == nullptr || !cancel->load(std::memory_order_relaxed);
}

}  // namespace df::network
