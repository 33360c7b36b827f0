#include "threads/stop.h"

#include <ctime>

namespace df {
namespace {

constexpr double kPollSeconds = 0.01;

// The clock of the last timer interrupt, 1 to 10 ms old, where there is one: a fifth of the cost of an exact one.
double seconds() {
  timespec now{};
#ifdef CLOCK_MONOTONIC_COARSE
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
  timespec_get(&now, TIME_UTC);
#endif
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

Stop::Stop(Poll poll) : poll_(poll), owner_(std::this_thread::get_id()), polled_(poll == nullptr ? 0.0 : seconds()) {}

void Stop::poll_if_due() {
  const double now = seconds();
  if (now - polled_ < kPollSeconds && now >= polled_) return;
  poll_(*this);
  polled_ = seconds();
}

}  // namespace df
