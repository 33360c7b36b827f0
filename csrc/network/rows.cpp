#include "network/rows.h"

#include <algorithm>
#include <utility>

namespace df::network {

int64_t RowCache::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

std::vector<RowHandle> RowCache::find(std::span<const Key> keys) {
  std::vector<RowHandle> out(keys.size());
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto found = rows_.find(keys[i]);
    if (found == rows_.end()) continue;
    found->second.used = ++clock_;
    out[i] = found->second.row;
  }
  return out;
}

// Adds rows[i] at keys[which[i]], or takes the row that another thread has added.
void RowCache::add(std::span<const Key> keys, std::span<const size_t> which, std::span<RowHandle> rows) {
  std::vector<RowHandle> dropped;  // freed without the lock
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [found, is_new] = rows_.try_emplace(keys[which[i]], Kept{rows[i], ++clock_});
    if (is_new) {
      bytes_ += rows[i]->bytes();
    } else {
      dropped.push_back(std::exchange(rows[i], found->second.row));
    }
  }
  if (bytes_ > most_) drop_idle(dropped);
}

void RowCache::drop_idle(std::vector<RowHandle>& dropped) {
  std::vector<Rows::iterator> idle;
  int64_t idle_bytes = 0;
  for (auto at = rows_.begin(); at != rows_.end(); ++at) {
    if (at->second.row.use_count() > 1) continue;  // others get a row from the cache or from each other, so 1 stays 1
    idle.push_back(at);
    idle_bytes += at->second.row->bytes();
  }
  if (idle_bytes > budget_) {
    std::sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) { return a->second.used < b->second.used; });
    dropped.reserve(dropped.size() + idle.size());
    for (const auto& at : idle) {
      if (idle_bytes <= budget_ / 2) break;
      idle_bytes -= at->second.row->bytes();
      bytes_ -= at->second.row->bytes();
      dropped.push_back(std::move(at->second.row));
      rows_.erase(at);
    }
  }
  most_ = bytes_ - idle_bytes + budget_;
}

}  // namespace df::network
