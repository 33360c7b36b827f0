// One thread pool for the whole core.
//
// run(parts, threads, fn) calls fn(0) .. fn(parts-1), each once, on the caller and on at most threads - 1 workers, and returns
// when all are done. Parts run in any order on any thread, so they must be independent. Calls from several threads are safe:
// one of them uses the workers, the others run their parts on their own thread. A forked child starts without workers and
// creates its own on first use. Workers stay awake for a quarter of a millisecond after a call, then they sleep. If the system
// cannot create a thread, a call continues with the existing ones. Workers use the default rounding and denormal modes; see
// FloatMode.

#pragma once

#include <cstdint>

namespace df {

using PartFn = void (*)(void* context, int64_t part);

void run_parts(int64_t parts, int threads, PartFn fn, void* context);

template <class Fn>
void run(int64_t parts, int threads, Fn&& fn) {
  run_parts(parts, threads, [](void* context, int64_t part) { (*static_cast<Fn*>(context))(part); }, &fn);
}

// The number of threads that a call may use, including the caller. Initially DIFFUSE_FAST_NUM_THREADS, else the number of
// cores that the process may run on.
int num_threads();
void set_num_threads(int threads);

// The number of forks between the first process that used the core and this one.
int fork_count();

// Sets rounding to nearest even without flushing denormals for a scope, then restores the caller's modes.
class FloatMode {
 public:
  FloatMode();
  ~FloatMode();
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace df
