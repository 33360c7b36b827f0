// One network used by several threads: the bits of its results, rows that they share, the float mode, stopping, and a fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "network/network.h"
#include "programs.h"
#include "threads/pool.h"

namespace {

using df::network::Network;
using df::network::RowHandle;

constexpr int64_t kBatch = 16;

std::vector<float> samples() {
  std::vector<float> x(kBatch * 64);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  return x;
}

// Step `step` of sample i, which follows a plan of its own: 16 + i steps from 1 to 0.
float time_of(int64_t i, int step) { return 1.0f - static_cast<float>(step) / static_cast<float>(16 + i); }

// Ticks of 16 samples on 16 plans: y of one is x of the next. All rows of a sample's plan are prepared at first if `hold`, else
// each tick prepares its own.
std::vector<float> sample(Network& network, bool hold, int threads) {
  constexpr int kTicks = 12;
  std::vector<float> x = samples(), y(x.size());
  std::vector<float> labels;
  for (int64_t i = 0; i < kBatch; ++i) labels.push_back(static_cast<float>(i % 3));
  const float* label = labels.data();
  const std::vector<RowHandle> conditions = network.prepare_conditions(&label, kBatch);
  std::vector<std::vector<RowHandle>> plans;
  for (int tick = 0; tick < kTicks; ++tick) {
    std::vector<float> times;
    for (int64_t i = 0; i < kBatch; ++i) times.push_back(time_of(i, tick));
    if (tick == 0 || !hold) plans.clear();
    if (hold && tick == 0)
      for (int64_t i = 0; i < kBatch; ++i) {
        std::vector<float> plan;
        for (int step = 0; step < kTicks; ++step) plan.push_back(time_of(i, step));
        plans.push_back(network.prepare_times(plan.data(), kTicks));
      }
    std::vector<RowHandle> rows;
    if (hold) {
      for (const auto& plan : plans) rows.push_back(plan[static_cast<size_t>(tick)]);
    } else {
      rows = network.prepare_times(times.data(), kBatch);
    }
    CHECK(network.run(x.data(), nullptr, y.data(), rows.data(), conditions.data(), kBatch, threads));
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(y[i]);
  }
  return x;
}

}  // namespace

TEST(network_budget_changes_no_bits) {
  for (const df::Kernel* kernel : runnable_kernels()) {
    std::vector<float> expected;
    for (const int64_t budget : {int64_t{0}, int64_t{2000}, INT64_MAX})
      for (const bool hold : {false, true}) {
        const std::vector<float> got = sample(*network_of_every_kind(kernel->name, budget), hold, 1);
        if (expected.empty()) expected = got;
        CHECK_WITH(got == expected, std::string(" ") + kernel->name + ", budget " + std::to_string(budget));
      }
  }
}

TEST(network_concurrent_calls) {
  df::set_num_threads(3);
  for (const char* kernel : {"scalar", runnable_kernels().front()->name})
    for (const int64_t budget : {int64_t{0}, int64_t{64} << 20}) {
      const std::vector<float> expected = sample(*network_of_every_kind(kernel), true, 1);
      const auto network = network_of_every_kind(kernel, budget);
      std::atomic<int> wrong{0};
      std::vector<std::thread> callers;
      for (int n = 0; n < 4; ++n)
        callers.emplace_back([&, n] {
          for (int round = 0; round < 4; ++round) wrong += !(sample(*network, (n + round) % 2 == 0, 1 + n % 3) == expected);
        });
      for (std::thread& caller : callers) caller.join();
      CHECK_WITH(wrong == 0, std::string(" ") + kernel);
    }
  df::set_num_threads(2);
}

TEST(network_threads_prepare_the_same_rows) {
  const auto network = network_of_every_kind(runnable_kernels().front()->name, 0);
  std::vector<float> times;
  for (int i = 0; i < 100; ++i) times.push_back(static_cast<float>(i % 50));
  std::vector<std::vector<RowHandle>> rows(4);
  std::vector<std::thread> threads;
  for (auto& mine : rows) threads.emplace_back([&] { mine = network->prepare_times(times.data(), 100); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : rows) CHECK(mine == rows[0]);
  CHECK(rows[0][0] == rows[0][50] && rows[0][0] != rows[0][1]);
}

// A caller's rounding mode changes no bit, on no thread, and is restored.
TEST(network_float_mode) {
  df::set_num_threads(3);
  const std::vector<float> x = samples(), times(kBatch, 0.3f), labels(kBatch, 1.0f);
  const float* label = labels.data();
  const Words words = every_kind();
  const auto constants = constants_for(df::network::decode(words));
  const std::vector<std::span<const float>> spans(constants.begin(), constants.end());
  const auto call = [&] {
    Network network(words, df::network::in_memory(spans), *df::network::find_kernels(runnable_kernels().front()->name));
    const auto rows = network.prepare_times(times.data(), kBatch), conditions = network.prepare_conditions(&label, kBatch);
    std::vector<float> y(x.size());
    network.run(x.data(), nullptr, y.data(), rows.data(), conditions.data(), kBatch, 3);
    return y;
  };
  const std::vector<float> expected = call();
  for (const int rounding : {FE_UPWARD, FE_TOWARDZERO}) {
    std::fesetround(rounding);
    const std::vector<float> y = call();
    CHECK(std::fegetround() == rounding);
    std::fesetround(FE_TONEAREST);
    CHECK(y == expected);
  }
  df::set_num_threads(2);
}

TEST(network_stopped_calls) {
  df::set_num_threads(3);
  const auto network = network_of_every_kind(runnable_kernels().front()->name);
  const std::vector<float> expected = sample(*network, true, 1), x = samples();
  const std::vector<float> times(kBatch, 0.5f), labels(kBatch, 1.0f);
  const float* label = labels.data();
  const auto time_rows = network->prepare_times(times.data(), kBatch);
  const auto conditions = network->prepare_conditions(&label, kBatch);
  const auto call = [&](std::vector<float>& y, df::Stop* stop) {
    y.assign(x.size(), 0.0f);
    return network->run(x.data(), nullptr, y.data(), time_rows.data(), conditions.data(), kBatch, 3, stop);
  };
  std::vector<float> whole, y;
  CHECK(call(whole, nullptr));
  df::Stop stopped;
  stopped.request();
  CHECK(!call(y, &stopped));
  for (int round = 0; round < 50; ++round) {
    df::Stop stop;
    std::thread other([&] {
      for (int i = 0; i < 20 * round; ++i) std::this_thread::yield();
      stop.request();
    });
    while (call(y, &stop)) CHECK(y == whole);
    other.join();
  }
  CHECK(sample(*network, true, 3) == expected);  // the network is as it was
  df::set_num_threads(2);
}

#if !defined(__SANITIZE_THREAD__)  // ThreadSanitizer has no threads after a fork
// Other threads of the parent prepare and run when it forks, so that the child finds locks held and workspaces in use.
TEST(network_fork_during_calls) {
  df::set_num_threads(2);
  const auto network = network_of_every_kind(runnable_kernels().front()->name);
  const std::vector<float> expected = sample(*network, true, 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int n = 0; n < 2; ++n)
    busy.emplace_back([&, n] {
      while (!stop) sample(*network, n == 0, 2);
    });
  for (int n = 0; n < 20; ++n) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // a child that hangs fails the test
      _exit(sample(*network, n % 2 == 0, 2) == expected ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop = true;
  for (std::thread& thread : busy) thread.join();
}
#endif
