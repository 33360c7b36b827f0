// Which rows a network keeps.
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "network/rows.h"

namespace {

using df::network::Row;
using df::network::RowCache;
using df::network::RowHandle;
using Keys = std::vector<RowCache::Key>;

constexpr int64_t kFloats = 16, kBytes = kFloats * 4;

// Gets the rows of times, and counts those that are computed.
std::vector<RowHandle> get(RowCache& cache, const std::vector<uint64_t>& times, int* computed = nullptr) {
  Keys keys;
  for (const uint64_t time : times) keys.push_back({0, time, 0});
  return cache.get(keys, [&](std::span<const size_t> which) {
    std::vector<RowHandle> made;
    for (const size_t i : which) made.push_back(std::make_shared<Row>(Row{times[i], df::network::Floats(kFloats)}));
    if (computed != nullptr) *computed += static_cast<int>(which.size());
    return made;
  });
}

}  // namespace

TEST(rows_are_computed_once) {
  RowCache cache(100 * kBytes);
  int computed = 0;
  const auto first = get(cache, {1, 2, 1, 3}, &computed);
  CHECK(computed == 3 && first[0] == first[2] && first[0] != first[1]);
  CHECK(first[0]->id == 1 && first[1]->id == 2 && first[3]->id == 3);
  CHECK(get(cache, {3, 4, 1}, &computed)[0] == first[3] && computed == 4);
  CHECK(cache.bytes() == 4 * kBytes);
}

TEST(rows_in_use_are_outside_the_budget) {
  RowCache none(0);
  int computed = 0;
  auto held = get(none, {1, 2, 3}, &computed);
  get(none, {1, 2, 3}, &computed);
  CHECK(computed == 3);  // found, because they are held
  get(none, {4}, &computed);
  get(none, {4}, &computed);  // the last row went when this one came
  CHECK(computed == 4 || computed == 5);
  held.clear();
  get(none, {5}, &computed);
  computed = 0;
  get(none, {1, 2, 3}, &computed);
  CHECK(computed == 3);

  RowCache some(10 * kBytes);
  const auto first = get(some, {100, 101, 102, 103, 104, 105});
  for (uint64_t time = 0; time < 50; ++time) get(some, {time});
  computed = 0;
  get(some, {100, 101, 102, 103, 104, 105, 49, 48, 47}, &computed);
  CHECK(computed == 0 && some.bytes() <= 17 * kBytes);
  get(some, {0, 1}, &computed);
  CHECK(computed == 2);
}

TEST(rows_the_least_recently_used_go_first) {
  RowCache cache(4 * kBytes);
  for (const uint64_t time : {1, 2, 3, 4}) get(cache, {time});
  get(cache, {1});
  get(cache, {5});
  get(cache, {6});  // 5 was held by its call when it came
  int computed = 0;
  get(cache, {1}, &computed);
  CHECK(computed == 0);
  get(cache, {2}, &computed);
  CHECK(computed == 1);
}

TEST(rows_after_an_error) {
  RowCache cache(100 * kBytes);
  get(cache, {1});
  const Keys keys{{0, 1, 0}, {0, 2, 0}};
  const auto fail = [](std::span<const size_t>) -> std::vector<RowHandle> { throw std::runtime_error("no row"); };
  CHECK_THROWS(cache.get(keys, fail), std::runtime_error, "no row");
  int computed = 0;
  get(cache, {1, 2}, &computed);
  CHECK(computed == 1);
}

// All threads have got their rows before one lets them go.
TEST(rows_that_threads_compute_together_are_one) {
  constexpr int kThreads = 4;
  for (int round = 0; round < 20; ++round) {
    RowCache cache(round % 2 == 0 ? 0 : INT64_MAX);
    std::vector<std::vector<RowHandle>> rows(kThreads);
    std::vector<std::thread> threads;
    for (int n = 0; n < kThreads; ++n)
      threads.emplace_back([&, n] { rows[static_cast<size_t>(n)] = get(cache, {1, 2, 3, 4, 5, 6, 7, 8}); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& got : rows) CHECK(got == rows[0]);
    CHECK(cache.bytes() == 8 * kBytes);
  }
}
