// Slots against the same calls made by hand: every sample on a plan of its own, alone.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "loop/slots.h"
#include "programs.h"

namespace {

using df::loop::Plan;
using df::loop::Request;
using df::loop::Slots;
using df::network::Network;

constexpr int64_t kSamples = 5, kElements = 64;

df::Row row(bool calls) {
  df::Row row{};
  row.lo = -std::numeric_limits<float>::infinity();
  row.hi = std::numeric_limits<float>::infinity();
  row.r = 1.0f;
  row.write = -1;
  row.calls_network = calls ? 1 : 0;
  row.a = calls ? 0.75f : 0.5f;
  row.s = calls ? 0.0f : 0.25f;
  return row;
}

// A plan of sample i: 4 + i rows with the network, guided for odd samples, a register, and rows without the network between them.
std::shared_ptr<const Plan> plan_of(int64_t i) {
  auto plan = std::make_shared<Plan>();
  plan->registers = 1;
  for (int64_t n = 0; n < 4 + i; ++n) {
    if (n % 3 == 1) {
      plan->rows.push_back(row(false));
      plan->times.push_back(0.0f);
    }
    df::Row next = row(true);
    next.g[0] = i % 2 == 1 ? 2.0f : 1.0f;
    next.g[1] = i % 2 == 1 ? -1.0f : 0.0f;
    next.b = 0.0625f;
    next.write = 0;
    next.e_m = 1.0f;
    next.c[0] = n == 0 ? 0.0f : 0.125f;
    plan->rows.push_back(next);
    plan->times.push_back(1.0f - static_cast<float>(n) / 16.0f);
  }
  return plan;
}

std::vector<float> start() {
  std::vector<float> x(static_cast<size_t>(kSamples * kElements));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 29) / 16.0f - 0.875f;
  return x;
}

std::vector<df::network::RowHandle> conditions(Network& network) {
  const std::vector<float> labels = {0.0f, 1.0f, 2.0f};
  const float* label = labels.data();
  return network.prepare_conditions(&label, 3);
}

// Sample i by hand, with one call of the network for each output.
std::vector<float> by_hand(Network& network, const df::Kernel& kernel, int64_t i) {
  const auto plan = plan_of(i);
  const auto labels = conditions(network);
  const std::vector<float> all = start();
  std::vector<float> x(all.begin() + i * kElements, all.begin() + (i + 1) * kElements);
  std::vector<float> outputs[2], memory(static_cast<size_t>(kElements));
  for (auto& output : outputs) output.resize(static_cast<size_t>(kElements));
  df::Buffers buffers;
  buffers.x = buffers.out = x.data();
  for (int j = 0; j < 2; ++j) buffers.outputs[j] = outputs[j].data();
  buffers.output_stride = kElements;
  buffers.output_count = 1;
  buffers.registers = memory.data();
  buffers.register_count = 1;
  const uint64_t seed = 7;
  const auto index = static_cast<uint32_t>(i);
  df::Stepper stepper(kernel, plan->rows.data(), static_cast<int64_t>(plan->rows.size()), 1, kElements, 0, df::DType::kFloat32,
                      df::DType::kFloat32, buffers, &seed, &index);
  for (size_t n = 0; n < plan->rows.size(); ++n) {
    if (plan->rows[n].calls_network != 0) {
      const auto time = network.prepare_times(&plan->times[n], 1);
      for (int j = 0; j < 2; ++j) {
        const auto& label = labels[static_cast<size_t>(j == 0 ? i % 3 : 2)];
        CHECK(network.run(x.data(), nullptr, outputs[j].data(), time.data(), &label, 1, 1));
      }
    }
    CHECK(stepper.run(static_cast<int64_t>(n), static_cast<uint32_t>(n)) == -1);
  }
  return x;
}

void admit(Network& network, Slots& slots, int64_t i) {
  const auto labels = conditions(network);
  const std::vector<float> x = start();
  Request request{plan_of(i), 7, static_cast<uint32_t>(i), {labels[static_cast<size_t>(i % 3)], labels[2], nullptr}, false};
  slots.admit(i, request);
  std::copy(x.begin() + i * kElements, x.begin() + (i + 1) * kElements, slots.state() + i * kElements);
}

bool is(Slots& slots, int64_t i, const std::vector<float>& expected) {
  const float* x = slots.state() + i * kElements;
  return std::vector<float>(x, x + kElements) == expected;
}

}  // namespace

TEST(loop_every_sample_as_by_hand) {
  for (const df::Kernel* kernel : runnable_kernels()) {
    const auto network = network_of_every_kind(kernel->name);
    CHECK(network->output_size() == kElements);
    Slots slots(*network, *kernel, kSamples, 2);
    for (int64_t i = 0; i < kSamples; ++i) admit(*network, slots, i);
    df::Stop stop;
    CHECK(slots.run(stop) == Slots::Result::kDone);
    for (int64_t i = 0; i < kSamples; ++i) {
      CHECK(slots.done(i));
      CHECK_WITH(is(slots, i, by_hand(*network, *kernel, i)), std::to_string(i));
    }
    CHECK(slots.tick(stop) == Slots::Result::kDone);
  }
}

TEST(loop_samples_come_and_go) {
  const df::Kernel& kernel = *runnable_kernels().front();
  const auto network = network_of_every_kind(kernel.name);
  Slots slots(*network, kernel, kSamples, 1);
  df::Stop stop;
  for (int64_t i = 0; i < kSamples; ++i) {
    admit(*network, slots, i);
    CHECK(slots.tick(stop) == Slots::Result::kAdvanced);
    if (i == 2) slots.retire(0);
  }
  CHECK(slots.run(stop) == Slots::Result::kDone);
  for (int64_t i = 1; i < kSamples; ++i) CHECK(is(slots, i, by_hand(*network, kernel, i)));
}

TEST(loop_stopped_runs_go_on) {
  const df::Kernel& kernel = *runnable_kernels().front();
  const auto network = network_of_every_kind(kernel.name);
  const std::vector<float> expected = by_hand(*network, kernel, 3);
  for (int round = 1; round < 20; ++round) {
    Slots slots(*network, kernel, kSamples, 2);
    for (int64_t i = 0; i < kSamples; ++i) admit(*network, slots, i);
    for (Slots::Result result = Slots::Result::kStopped; result == Slots::Result::kStopped;) {
      df::Stop stop;
      std::thread other([&] {
        for (int n = 0; n < 10 * round; ++n) std::this_thread::yield();
        stop.request();
      });
      result = slots.run(stop);
      other.join();
    }
    CHECK(is(slots, 3, expected));
  }
}

TEST(loop_nan_names_the_slot_and_the_row) {
  const df::Kernel& kernel = *runnable_kernels().front();
  const auto network = network_of_every_kind(kernel.name);
  Slots slots(*network, kernel, kSamples, 1);
  for (int64_t i = 0; i < kSamples; ++i) admit(*network, slots, i);
  slots.state()[2 * kElements + 5] = std::numeric_limits<float>::quiet_NaN();
  df::Stop stop;
  CHECK(slots.run(stop) == Slots::Result::kNotFinite);
  CHECK(slots.bad().size() == 1 && slots.bad()[0].slot == 2 && slots.bad()[0].row == 0);
  slots.retire(2);
  CHECK(slots.run(stop) == Slots::Result::kDone);
  CHECK(is(slots, 3, by_hand(*network, kernel, 3)));
}

TEST(loop_refuses_what_the_slots_do_not_have) {
  const df::Kernel& kernel = *runnable_kernels().front();
  const auto network = network_of_every_kind(kernel.name);
  Slots slots(*network, kernel, 1, 1);
  auto plan = std::make_shared<Plan>(*plan_of(0));
  plan->registers = 0;
  bool refused = false;
  try {
    slots.admit(0, Request{plan, 0, 0, {}, false});
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused && slots.done(0));
}
