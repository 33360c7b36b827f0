// Rows that a network has prepared, and which of them it keeps.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "network/operations/prepared.h"

namespace df::network {

// What was prepared for one time, condition, or pair of them.
struct Row {
  uint64_t id = 0;
  Floats values;

  int64_t bytes() const { return values.size() * static_cast<int64_t>(sizeof(float)); }
};
using RowHandle = std::shared_ptr<const Row>;

// Rows by key, for any number of threads.
//
// A row that someone holds is always found and is outside the budget, which bounds the bytes of idle ones. Above it the least
// recently used go, down to half of it. Which rows are idle is looked at when rows are added.
//
// The lock is held for look-ups only, never while rows are computed. Two threads may thus compute one row at the same time; both
// get the row of the one that is done first.
class RowCache {
 public:
  struct Key {
    int level;
    uint64_t first, second;
    std::string bytes{};  // of a condition: its values
    auto operator<=>(const Key&) const = default;
  };

  explicit RowCache(int64_t budget) : budget_(budget), most_(budget) {}

  // The row of each key. `compute` gets the places of keys that are missing, each key once, and returns their rows. If it throws,
  // the cache is as it was.
  template <class Compute>
  std::vector<RowHandle> get(std::span<const Key> keys, Compute&& compute) {
    std::vector<RowHandle> out = find(keys);
    std::map<Key, size_t> order;
    std::vector<size_t> missing;
    for (size_t i = 0; i < keys.size(); ++i)
      if (out[i] == nullptr && order.emplace(keys[i], missing.size()).second) missing.push_back(i);
    if (missing.empty()) return out;
    std::vector<RowHandle> made = compute(std::span<const size_t>(missing));
    add(keys, missing, made);
    for (size_t i = 0; i < keys.size(); ++i)
      if (out[i] == nullptr) out[i] = made[order.at(keys[i])];
    return out;
  }

  int64_t bytes() const;  // of all rows, idle or not

 private:
  struct Kept {
    RowHandle row;
    uint64_t used;  // when, on the clock below
  };
  using Rows = std::map<Key, Kept>;

  std::vector<RowHandle> find(std::span<const Key> keys);
  void add(std::span<const Key> keys, std::span<const size_t> which, std::span<RowHandle> rows);
  void drop_idle(std::vector<RowHandle>& dropped);

  const int64_t budget_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0;
  int64_t most_;  // bytes above which idle rows may be over the budget
  uint64_t clock_ = 0;
  Rows rows_;
};

}  // namespace df::network
