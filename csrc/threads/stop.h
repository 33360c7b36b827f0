// A request to stop a running call, checked between its operations.

#pragma once

#include <atomic>
#include <thread>

namespace df {

class Stop {
 public:
  // Called on the thread that made the Stop, between operations and at most every 10 ms. It may call request().
  using Poll = void (*)(Stop& stop);
  explicit Stop(Poll poll = nullptr);

  // From any thread.
  void request() { requested_.store(true, std::memory_order_relaxed); }

  // Whether the call should stop. Any thread of the call asks this between operations.
  bool requested() {
    if (poll_ != nullptr && std::this_thread::get_id() == owner_) poll_if_due();
    return requested_.load(std::memory_order_relaxed);
  }

 private:
  void poll_if_due();

  std::atomic<bool> requested_{false};
  const Poll poll_;
  const std::thread::id owner_;
  double polled_ = 0;
};

}  // namespace df
