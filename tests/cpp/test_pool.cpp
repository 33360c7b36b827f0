// The pool under concurrent callers, nested calls and a fork; the floating-point mode of a call.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "fixtures.h"
#include "step/cpu/kernels.h"
#include "threads/pool.h"

namespace {

// Whether every part ran exactly once.
bool runs_each_part_once(int64_t parts, int threads = df::num_threads()) {
  std::vector<int> runs(static_cast<size_t>(parts), 0);  // each part runs on one thread, so no lock is needed
  df::run(parts, threads, [&](int64_t part) { ++runs[static_cast<size_t>(part)]; });
  return runs == std::vector<int>(static_cast<size_t>(parts), 1);
}

// Sets the mode that flushes denormals to zero, as a program may.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
  bool still_set() const { return (_mm_getcsr() & 0x8040u) == 0x8040u; }
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | uint64_t{1} << 24));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }
  bool still_set() const {
    uint64_t now;
    __asm__ volatile("mrs %0, fpcr" : "=r"(now));
    return (now >> 24 & 1) != 0;
  }
#endif
 private:
  uint64_t saved_;
};

}  // namespace

TEST(pool_runs_each_part_once) {
  for (const int threads : {1, 2, 4, 3, 8}) {
    df::set_num_threads(threads);
    CHECK(df::num_threads() == threads);
    for (const int64_t parts : {0, 1, 2, 7, 1000}) CHECK(runs_each_part_once(parts));
  }
  df::set_num_threads(-3);
  CHECK(df::num_threads() == 1);
  df::set_num_threads(2);
}

// The threads that ran parts are counted, not timed.
TEST(pool_uses_no_more_threads_than_asked) {
  df::set_num_threads(8);
  for (const int threads : {1, 2, 3}) {
    std::mutex lock;
    std::set<std::thread::id> seen;
    for (int i = 0; i < 50; ++i)
      df::run(64, threads, [&](int64_t) {
        const std::lock_guard<std::mutex> held(lock);
        seen.insert(std::this_thread::get_id());
      });
    CHECK(seen.count(std::this_thread::get_id()) == 1 || threads > 1);
    CHECK(static_cast<int>(seen.size()) <= threads);
  }
  df::set_num_threads(2);
}

TEST(pool_threads_by_the_work) {
  // 16 images of 3x32x32 with noise, and 256 without, are too little work for a second thread.
  CHECK(df::threads_for(3'072, 0, 8) == 1);
  CHECK(df::threads_for(3'072, 1, 8) == 1);
  CHECK(df::threads_for(49'152, 0, 8) == 1);
  CHECK(df::threads_for(49'152, 1, 8) == 1);
  CHECK(df::threads_for(786'432, 0, 8) == 1);
  CHECK(df::threads_for(786'432, 1, 8) == 8);
  CHECK(df::threads_for(12'582'912, 0, 16) == 16);
  for (int64_t elements = 1; elements < int64_t{1} << 40; elements *= 2)
    for (const int draws : {0, 1, 2}) {
      const int threads = df::threads_for(elements, draws, 16);
      CHECK(threads >= 1 && threads <= 16 && threads >= df::threads_for(elements / 2, draws, 16));
      CHECK(threads <= df::threads_for(elements, draws + 1, 16));
      CHECK(df::threads_for(elements, draws, 1) == 1);
    }
}

TEST(pool_concurrent_callers) {
  df::set_num_threads(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int i = 0; i < 300; ++i) wrong += !runs_each_part_once(1 + i % 9);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST(pool_nested_calls) {
  df::set_num_threads(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 50; ++i)
    df::run(6, 3, [&](int64_t outer) { df::run(5, 3, [&](int64_t inner) { sum += outer * 10 + inner; }); });
  CHECK(sum == 50 * (5 * 10 * 15 + 6 * 10));
}

TEST(pool_concurrent_steps) {
  df::set_num_threads(2);
  Case what{named_rows()[2].second};
  what.row.s = 0.5f;
  what.samples = 3;
  what.elements = 60'000;
  for (const df::Kernel* kernel : runnable_kernels()) {
    const Outcome expected = apply(*kernel, what);
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller) callers.emplace_back([&] { wrong += !(apply(*kernel, what) == expected); });
    for (std::thread& caller : callers) caller.join();
    CHECK_WITH(wrong == 0, std::string(" ") + kernel->name);
  }
}

#if defined(__has_feature)  // clang's form of __SANITIZE_THREAD__
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#if !defined(__SANITIZE_THREAD__)  // ThreadSanitizer has no threads after a fork
TEST(pool_forked_child) {
  df::set_num_threads(3);
  CHECK(runs_each_part_once(100));  // the parent has workers now
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a child that hangs fails the test
    _exit(runs_each_part_once(100) ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(runs_each_part_once(100));
}
#endif

// A caller's rounding and denormal modes change no bit, and are restored after the call.
TEST(pool_float_mode) {
  Case what{empty_row()};
  what.row.a = 0x1p-126f;  // denormal products
  what.row.b = 0.3f;
  what.row.s = 0.7f;
  what.row.write = 0;
  what.row.e_x = 0x1p-127f;
  what.samples = 2;
  what.elements = 150'000;
  for (const int threads : {1, 3}) {
    df::set_num_threads(threads);
    for (const df::Kernel* kernel : runnable_kernels()) {
      const Outcome expected = apply(*kernel, what);
      float kept;
      std::memcpy(&kept, expected.registers.data(), 4);
      CHECK(kept != 0.0f && std::abs(kept) < 0x1p-126f);
      for (const int rounding : {FE_UPWARD, FE_TOWARDZERO}) {
        std::fesetround(rounding);
        const Outcome rounded = apply(*kernel, what);
        CHECK(std::fegetround() == rounding);
        std::fesetround(FE_TONEAREST);
        CHECK_WITH(rounded == expected, std::string(" ") + kernel->name);
      }
      const auto flushed = [&] {
        const FlushDenormals mode;
        Outcome outcome = apply(*kernel, what);
        CHECK(mode.still_set());
        return outcome;
      }();
      CHECK_WITH(flushed == expected, std::string(" ") + kernel->name);
    }
  }
  df::set_num_threads(2);
}
