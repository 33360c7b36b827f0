// One pool of threads for all of csrc.
//
// run(parts, threads, fn) calls fn(0) .. fn(parts-1), each once, on the caller and on at most threads - 1 of the pool, and
// returns when all are done.
// Which thread runs which part is not defined, so parts must not depend on one another. Calls from several threads are
// safe: one at a time has the workers, the others run their parts themselves. A forked child starts with no workers and
// makes its own on first use. Where the system gives no more threads, a call goes on with those it has. Workers run with the
// default rounding and denormal modes; see FloatMode.

#pragma once

#include <cstdint>

namespace df {

using PartFn = void (*)(void* context, int64_t part);

void run_parts(int64_t parts, int threads, PartFn fn, void* context);

template <class Fn>
void run(int64_t parts, int threads, Fn&& fn) {
  run_parts(parts, threads, [](void* context, int64_t part) { (*static_cast<Fn*>(context))(part); }, &fn);
}

// Number of threads a call may use, the caller included. Starts as DIFFUSE_FAST_NUM_THREADS, else the number of cores
// this process may run on.
int num_threads();
void set_num_threads(int threads);

// Round to nearest even, denormals kept: set while it lives, the caller's mode restored after.
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
