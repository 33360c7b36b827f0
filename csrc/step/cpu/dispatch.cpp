#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "step/cpu/kernels.h"
#include "threads/pool.h"

namespace df {

extern const Kernel kernel_scalar;
#if defined(DF_HAVE_AVX2)
extern const Kernel kernel_avx2;
#endif
#if defined(DF_HAVE_AVX512)
extern const Kernel kernel_avx512;
#endif
#if defined(DF_HAVE_NEON)
extern const Kernel kernel_neon;
#endif

namespace {

const Kernel* const kTable[] = {
#if defined(DF_HAVE_AVX512)
    &kernel_avx512,
#endif
#if defined(DF_HAVE_AVX2)
    &kernel_avx2,
#endif
#if defined(DF_HAVE_NEON)
    &kernel_neon,
#endif
    &kernel_scalar,
};

// Elements per part of the work: small enough for a thread's cache, and for threads to finish together. A multiple of every
// kernel's group, so that parts end between counters.
constexpr int64_t kPart = 32768;
constexpr int64_t kSmallestPart = 4096;

// The least elements per thread, about 65 us (docs/runtimes.md). With a lower limit a second thread slowed short steps down: on two
// logical processors of a Zen 4 from 59 to 70 us and from 136 to 180 us, while a step of 14.8 ms took 9.2
// (bench/results/epyc-zen4.json).
constexpr int64_t kThread = 524288;
constexpr int64_t kDraw = 5;  // the cost of drawing a normal, in elements: measured 4.6 with AVX-512, 6.3 with AVX2

// Splits `count` samples of `elements` into parts and calls fn(sample, begin, end) for each, on threads_for() threads.
template <class Fn>
void split(int64_t count, int64_t elements, int draws, Fn&& fn) {
  const int threads = threads_for(count * elements, draws, num_threads());
  // Small work: four parts per thread.
  const int64_t quarter = (count * elements / (4 * threads) / kSmallestPart + 1) * kSmallestPart;
  const int64_t size = threads == 1 ? kPart : std::min(quarter, kPart);
  const int64_t per_sample = std::max<int64_t>(1, (elements + size - 1) / size);
  const int64_t samples_per_part = std::max<int64_t>(1, size / std::max<int64_t>(1, elements));
  const int64_t parts = (count + samples_per_part - 1) / samples_per_part * per_sample;
  run(parts, threads, [&](int64_t part) {
    const int64_t begin = part % per_sample * size, end = std::min(elements, begin + size);
    const int64_t first = part / per_sample * samples_per_part, last = std::min(count, first + samples_per_part);
    for (int64_t i = first; i < last; ++i) fn(i, begin, end);
  });
}

// The number of normals that the step draws per element: the maximum over the samples.
int draws_of(const Call& call) {
  int most = 0;
  for (int64_t i = 0; i < call.count; ++i) {
    const Sample& s = call.samples[i];
    const uint32_t terms = s.row->terms;
    most = std::max(most, ((terms & (kS | kLearnedS)) != 0) + (s.mask != nullptr && (terms & kKnownZ) != 0));
  }
  return most;
}

}  // namespace

const Kernel* const* kernels(int& count) {
  count = static_cast<int>(sizeof kTable / sizeof *kTable);
  return kTable;
}

const Kernel* find_kernel(const char* name) {
  for (const Kernel* kernel : kTable)
    if (std::strcmp(kernel->name, name) == 0) return kernel;
  return nullptr;
}

const Kernel& require_kernel(const char* name) {
  const Kernel* kernel = find_kernel(name);
  if (kernel == nullptr) throw std::invalid_argument("this build has no kernel '" + std::string(name) + "'");
  if (const char* why = kernel->unavailable()) throw std::runtime_error("kernel '" + std::string(name) + "' cannot run: " + why);
  return *kernel;
}

int threads_for(int64_t elements, int draws, int limit) {
  return static_cast<int>(std::clamp<int64_t>(elements * (1 + draws * kDraw) / kThread, 1, limit));
}

void run_step(const Kernel& kernel, const Call& call) {
  FloatMode mode;
  const int draws = draws_of(call);
  const bool reduces = std::any_of(call.samples, call.samples + call.count,
                                   [](const Sample& s) { return s.row->row.reduce != static_cast<int32_t>(Reduce::kNone); });
  if (!reduces) {
    split(call.count, call.elements, draws, [&](int64_t i, int64_t begin, int64_t end) { kernel.step(call, i, begin, end); });
    return;
  }
  std::vector<PreparedRow> rows(static_cast<size_t>(call.count));
  std::vector<Sample> samples(call.samples, call.samples + call.count);
  // One part per thread, and one scratch per part. A part is a run of consecutive samples.
  const int64_t parts = std::min<int64_t>(call.count, threads_for(call.count * call.elements, draws + 1, num_threads()));
  std::vector<float> scratch(static_cast<size_t>(parts * call.elements));
  run(parts, static_cast<int>(parts), [&](int64_t part) {
    for (int64_t i = call.count * part / parts; i < call.count * (part + 1) / parts; ++i) {
      kernel.reduce(call, i, rows[static_cast<size_t>(i)], scratch.data() + part * call.elements);
      samples[static_cast<size_t>(i)].row = &rows[static_cast<size_t>(i)];
    }
  });
  Call reduced = call;
  reduced.samples = samples.data();
  split(call.count, call.elements, draws, [&](int64_t i, int64_t begin, int64_t end) { kernel.step(reduced, i, begin, end); });
}

void run_normals(const Kernel& kernel, float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds,
                 const uint32_t* indices, uint32_t row, uint32_t stream, float scale) {
  FloatMode mode;
  split(count, elements, 1, [&](int64_t i, int64_t begin, int64_t end) {
    kernel.normals({out + i * elements + begin, end - begin, element_offset + static_cast<uint64_t>(begin), seeds[i], indices[i],
                    row, stream, scale});
  });
}

void run_forward(const Kernel& kernel, const Forward& what, int64_t count) {
  FloatMode mode;
  const int draws = what.noise == nullptr ? 1 : 0;
  split(count, what.elements, draws, [&](int64_t i, int64_t begin, int64_t end) { kernel.forward(what, i, begin, end); });
}

}  // namespace df
