#include "threads/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace df {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int default_threads() {
  if (const char* text = std::getenv("DIFFUSE_FAST_NUM_THREADS")) {
    const int n = std::atoi(text);
    if (n >= 1) return std::min(n, 1024);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int> g_threads{0};  // 0: not set yet

// Waits until a condition holds, for at most a quarter of a millisecond: so long do threads stay awake between calls. Waking one
// that sleeps takes as long as a small layer of a network.
template <class Condition>
bool spin(const Condition& holds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(250);
  do {
    for (int i = 0; i < 64; ++i) {
      if (holds()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class Pool {
 public:
  void run(int64_t parts, PartFn fn, void* context, int threads) {
    int helpers = static_cast<int>(std::min<int64_t>(threads, parts)) - 1;
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (helpers < 1 || !turn.owns_lock()) {
      for (int64_t i = 0; i < parts; ++i) fn(context, i);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_.size()) < helpers && start_worker()) {
      }
      helpers = std::min(helpers, static_cast<int>(workers_.size()));
      fn_ = fn;
      context_ = context;
      parts_ = parts;
      next_.store(0, std::memory_order_relaxed);
      helpers_ = helpers;
      running_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_parts();
    const auto done = [this] { return running_.load(std::memory_order_acquire) == 0; };
    if (spin(done)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, done);
  }

 private:
  // Whether the thread was created. If not, the existing threads do the work.
  bool start_worker() {
    const auto id = static_cast<int>(workers_.size());
    try {
      workers_.emplace_back([this, id, seen = generation_.load(std::memory_order_relaxed)] { work(id, seen); });
    } catch (const std::system_error&) {
      return false;
    }
    return true;
  }

  void take_parts() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < parts_;) fn_(context_, i);
  }

  void work(int id, uint64_t seen) {
    FloatMode mode;
    const auto called = [&] { return generation_.load(std::memory_order_acquire) != seen; };
    for (;;) {
      spin(called);
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, called);
        seen = generation_.load(std::memory_order_relaxed);
        if (id >= helpers_) continue;
      }
      take_parts();
      if (running_.fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
      const std::lock_guard<std::mutex> lock(mutex_);
      done_.notify_one();
    }
  }

  std::mutex turn_;  // held by the call that uses the workers
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  std::atomic<int64_t> next_{0};
  PartFn fn_ = nullptr;
  void* context_ = nullptr;
  int64_t parts_ = 0;
  int helpers_ = 0;
  std::atomic<int> running_{0};
  std::atomic<uint64_t> generation_{0};
};

// Never destroyed: workers end with the process, and do not exist in a forked child.
std::atomic<Pool*> g_pool{nullptr};

// A forked child has only the thread that forked. It abandons the parent's pool and its locks.
std::atomic<int> g_forks{0};
[[maybe_unused]] const int g_registered = pthread_atfork(nullptr, nullptr, [] {
  g_pool.store(nullptr);
  g_forks.fetch_add(1);
});

// Lock-free: a fork could leave a lock held in the child forever.
Pool& pool() {
  Pool* p = g_pool.load(std::memory_order_acquire);
  if (p != nullptr) return *p;
  auto made = std::make_unique<Pool>();
  if (g_pool.compare_exchange_strong(p, made.get(), std::memory_order_acq_rel)) return *made.release();
  return *p;
}

}  // namespace

void run_parts(int64_t parts, int threads, PartFn fn, void* context) {
  if (threads <= 1 || parts <= 1) {
    for (int64_t i = 0; i < parts; ++i) fn(context, i);
    return;
  }
  pool().run(parts, fn, context, threads);
}

int fork_count() { return g_forks.load(std::memory_order_relaxed); }

int num_threads() {
  int n = g_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    g_threads.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_num_threads(int threads) { g_threads.store(std::max(1, threads), std::memory_order_relaxed); }

#if defined(__x86_64__)
FloatMode::FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
FloatMode::~FloatMode() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
FloatMode::FloatMode() {
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  saved_ = fpcr;
  // All zero: round to nearest even, keep denormals, IEEE half precision, propagate NaN, as on x86.
  __asm__ volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
}
FloatMode::~FloatMode() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
FloatMode::FloatMode() : saved_(0) {}
FloatMode::~FloatMode() = default;
#endif

}  // namespace df
