// The CUDA kernels: settle -> [reduce] -> step, then settle again for the next launch.
//
//   x' = a x + b m + d x0 + sum c h + s z, and the rest of step.h, in one pass.
//   Bytes per element in float32: 12 for x, m -> out; 8 more per register read and written; none for noise.
//
// In the body of a sample each thread processes N consecutive elements. The body starts where a counter of the generator starts
// and all tensors are aligned to 16 bytes, so every access has 128 bits. The ends, and samples without such a place (after an odd
// number of elements), are processed one element per thread. Rows are chosen on the device, so one captured launch serves all.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "random/noise_cuda.h"
#include "simd/vector_cuda.h"
#include "step/apply.h"
#include "step/cuda/device_step.h"
#include "step/reduce.h"
#include "step/step.h"

namespace df::cuda {
namespace {

// A sample's current row.
struct Current {
  PreparedRow row;
  int32_t number;  // in the table; negative if the sample is inactive
};
static_assert(sizeof(Current) % 4 == 0);

// Values of first_bad besides row numbers. kNotCaptured: the sample's row needs another variant than the launch has.
constexpr int32_t kNoneBad = -1, kNotCaptured = -2;

// The arguments of a launch, fixed when the step is bound.
struct Launch {
  Buffers b;
  int64_t samples, elements;
  uint64_t element_offset;
  void* t;
  TimeType time_type;
  DType state, output;
  bool reduces;
  // The step's static memory.
  const int32_t* row_count;
  const PreparedRow* table;
  const float* times;
  int32_t* counter;
  uint32_t* noise_row;
  const uint64_t* seed;
  const uint32_t* index;
  int32_t* first_bad;
  Current* current;
};

constexpr int kStepThreads = 256, kSettleThreads = 32, kReduceThreads = 1024;

// ---- settle ---------------------------------------------------------------------------------------------

// Block i copies sample i's row to `current` and writes its time for the network. `advance`: go to the next row first.
__global__ void __launch_bounds__(kSettleThreads) settle_kernel(const __grid_constant__ Launch l, const bool advance) {
  const int64_t sample = blockIdx.x;
  const int32_t rows = *l.row_count;
  int32_t number = l.counter[sample];
  const bool was_active = number >= 0 && number < rows;
  __syncthreads();  // every thread has read the counter before it changes
  if (advance && was_active) ++number;
  const bool active = number >= 0 && number < rows;
  Current& current = l.current[sample];
  if (active) {
    const auto* from = reinterpret_cast<const uint32_t*>(l.table + number);
    auto* to = reinterpret_cast<uint32_t*>(&current.row);
    for (unsigned word = threadIdx.x; word < sizeof(PreparedRow) / 4; word += blockDim.x) to[word] = from[word];
  }
  if (threadIdx.x != 0) return;
  current.number = active ? number : -1;
  if (advance && was_active) {
    l.counter[sample] = number;
    l.noise_row[sample] += 1u;
  }
  if (l.t == nullptr || number < 0) return;
  const float time = l.times[number < rows ? number : rows - 1];
  switch (l.time_type) {
    case TimeType::kFloat32: static_cast<float*>(l.t)[sample] = time; break;
    case TimeType::kFloat64: static_cast<double*>(l.t)[sample] = static_cast<double>(time); break;
    case TimeType::kInt32: static_cast<int32_t*>(l.t)[sample] = static_cast<int32_t>(rintf(time)); break;
    case TimeType::kInt64: static_cast<int64_t*>(l.t)[sample] = static_cast<int64_t>(rintf(time)); break;
  }
}

// ---- step -----------------------------------------------------------------------------------------------

// Terms known when the kernel runs, among those of its set; the others are compiled away.
template <uint32_t kSet>
struct Within {
  uint32_t terms;
  DF_INLINE bool has(uint32_t any) const { return (terms & any & kSet) != 0; }
  static DF_INLINE int history_count(const PreparedRow& row) { return row.history_count; }
};

// The start of each tensor of one sample.
struct Tensors {
  const void* x;
  void* out;
  const void *m0, *m1, *m2, *v;
  float* h;
  int64_t h_stride;
  const float *y, *mask;
};

// The dtypes of a kernel: compile-time constants, or read at run time.
template <DType kState, DType kOutput>
struct FixedTypes {
  static constexpr int kElements = kState == DType::kFloat32 && kOutput == DType::kFloat32 ? 4 : 8;  // per thread
  DF_INLINE explicit FixedTypes(const Launch&) {}
  static DF_INLINE DType state() { return kState; }
  static DF_INLINE DType output() { return kOutput; }
};

struct AnyTypes {
  static constexpr int kElements = 8;
  const Launch& l;
  DF_INLINE explicit AnyTypes(const Launch& launch) : l(launch) {}
  DF_INLINE DType state() const { return l.state; }
  DF_INLINE DType output() const { return l.output; }
};

template <class T>
DF_INLINE T* offset(T* base, int64_t bytes) {
  return base == nullptr ? nullptr : reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(bytes));
}

template <class Types>
DF_INLINE Tensors tensors_of(const Launch& l, const Types& types, int64_t sample) {
  const int64_t state = bytes_of(types.state()), output = bytes_of(types.output());
  const int64_t first = sample * l.elements, first_output = sample * l.b.output_stride * output;
  Tensors s;
  s.x = offset(l.b.x, first * state);
  s.out = offset(l.b.out, first * state);
  s.m0 = offset(l.b.outputs[0], first_output);
  s.m1 = offset(l.b.outputs[1], first_output);
  s.m2 = offset(l.b.outputs[2], first_output);
  s.v = l.b.variance_offset < 0 ? nullptr : offset(s.m0, l.b.variance_offset * output);
  s.h = offset(l.b.registers, first * 4);
  s.h_stride = l.samples * l.elements;
  s.y = offset(l.b.y, first * 4);
  s.mask = offset(l.b.mask, first * 4);
  return s;
}

// Whether element `at` of every present tensor is aligned to 16 bytes.
template <class Types>
DF_INLINE bool aligned(const Tensors& s, const Types& types, int64_t at) {
  const auto state = static_cast<uintptr_t>(at * bytes_of(types.state()));
  const auto output = static_cast<uintptr_t>(at * bytes_of(types.output())), single = static_cast<uintptr_t>(at * 4);
  const auto bits = [](const void* base, uintptr_t bytes) {
    return base == nullptr ? uintptr_t{0} : reinterpret_cast<uintptr_t>(base) + bytes;
  };
  uintptr_t all = bits(s.x, state) | bits(s.out, state);
  all |= bits(s.m0, output) | bits(s.m1, output) | bits(s.m2, output) | bits(s.v, output);
  all |= bits(s.y, single) | bits(s.mask, single);
  if (s.h != nullptr) all |= bits(s.h, single) | static_cast<uintptr_t>(s.h_stride * 4);
  return all % kVectorBytes == 0;
}

// Loads and stores of apply_row for N elements from `at` on.
template <int N, class Types>
struct CudaIo {
  using F = typename CudaVector<N>::F;
  const Launch& l;
  const Tensors& s;
  const Types& types;
  int64_t sample, at;
  bool* bad;

  DF_INLINE F x() const { return load<N>(types.state(), s.x, at); }
  DF_INLINE F m(int j) const { return load<N>(types.output(), j == 0 ? s.m0 : j == 1 ? s.m1 : s.m2, at); }
  DF_INLINE F v() const { return load<N>(types.output(), s.v, at); }
  DF_INLINE F h(int k) const { return load<N>(DType::kFloat32, s.h + k * s.h_stride, at); }
  DF_INLINE F y() const { return load<N>(DType::kFloat32, s.y, at); }
  DF_INLINE F mask() const { return load<N>(DType::kFloat32, s.mask, at); }
  DF_INLINE F z(uint32_t stream = kStreamRow) const {
    return cuda_normals<N>(l.seed[sample], l.element_offset + static_cast<uint64_t>(at), l.noise_row[sample], l.index[sample],
                           stream);
  }
  DF_INLINE F z_known() const { return z(kStreamKnown); }
  DF_INLINE void store(const F& value) const { df::store<N>(types.state(), s.out, at, value); }
  DF_INLINE void store_h(int k, const F& value) const { df::store<N>(DType::kFloat32, s.h + k * s.h_stride, at, value); }
  // 0 * m is NaN if m is NaN or Inf, and a zero otherwise: a chain of fma detects all of them.
  DF_INLINE void check(const F& m) const {
    float zero = 0.0f;
#pragma unroll
    for (int j = 0; j < N; ++j) zero = CudaLane::fma(m.v[j], 0.0f, zero);
    *bad = *bad || zero != zero;
  }
};

template <TermSet kSet, class Types>
__global__ void __launch_bounds__(kStepThreads, 2) step_kernel(const __grid_constant__ Launch l) {
  constexpr int N = Types::kElements;
  constexpr uint32_t kTerms = kTermsOf[static_cast<int>(kSet)];
  const Types types(l);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t sample = blockIdx.y; sample < l.samples; sample += gridDim.y) {
    const Current& current = l.current[sample];
    if (current.number < 0) continue;
    uint32_t terms = current.row.terms;
    // The coefficients of the known region count only with a mask.
    terms = l.b.mask != nullptr ? terms | kMask : terms & ~(kKnownY | kKnownZ);
    if ((terms & ~kTerms) != 0 || (current.row.row.reduce != 0 && !l.reduces)) {
      l.first_bad[sample] = kNotCaptured;
      continue;
    }
    const Tensors s = tensors_of(l, types, sample);
    bool bad = false;
    // The body [begin, begin + body). Sixteen bytes of a 16-bit type are two counters, so it may start at the second one.
    int64_t begin = static_cast<int64_t>(-l.element_offset % 4);
    if (N == 8 && !aligned(s, types, begin)) begin += 4;
    const bool has_body = begin + N <= l.elements && aligned(s, types, begin);
    const int64_t body = has_body ? (l.elements - begin) / N * N : 0;
    for (int64_t at = begin + thread * N; at < begin + body; at += threads * N) {
      CudaIo<N, Types> io{l, s, types, sample, at, &bad};
      apply_row<CudaVector<N>>(current.row, Within<kTerms>{terms}, io);
    }
    for (int64_t rest = thread; rest < l.elements - body; rest += threads) {
      CudaIo<1, Types> io{l, s, types, sample, rest < begin ? rest : rest + body, &bad};
      apply_row<CudaVector<1>>(current.row, Within<kTerms>{terms}, io);
    }
    if (bad) atomicCAS(l.first_bad + sample, kNoneBad, current.number);
  }
}

// ---- reduce ---------------------------------------------------------------------------------------------
// One block per sample: a sample's result does not depend on the batch.

// Calls fn(element, x, m) for the thread's elements, from `begin` to `end`.
template <class Fn>
DF_INLINE void each_element(const Launch& l, const Tensors& s, const PreparedRow& row, int64_t sample, int64_t begin, int64_t end,
                            Fn fn) {
  const AnyTypes types(l);
  const Within<~0u> terms{row.terms};
  bool bad = false;
  for (int64_t at = begin + threadIdx.x; at < end; at += kReduceThreads) {
    const CudaIo<1, AnyTypes> io{l, s, types, sample, at, &bad};
    fn(io, terms, model_output<CudaVector<1>>(row.row, terms, io));
  }
}

constexpr int kDigits = 2048, kSums = 32;
constexpr uint32_t kInfinityBits = 0x7f800000u;

struct Shared {
  double sums[kReduceThreads];
  double partial[kSums];
  uint64_t total[kDigits];
  uint32_t count[kDigits];
  uint64_t part[kSums];
  uint64_t rank, equal;
  uint32_t digit, above;
  int finite;
};

// The sum over the block's threads, for thread 0; the order is fixed.
DF_INLINE double block_sum(Shared& shared, double value) {
  shared.sums[threadIdx.x] = value;
  __syncthreads();
  if (threadIdx.x < kSums) {
    double sum = 0.0;
    for (int i = 0; i < kReduceThreads / kSums; ++i) sum += shared.sums[i * kSums + threadIdx.x];
    shared.partial[threadIdx.x] = sum;
  }
  __syncthreads();
  double sum = 0.0;
  if (threadIdx.x == 0)
    for (double part : shared.partial) sum += part;
  __syncthreads();
  return sum;
}

DF_INLINE double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

// One step of a radix selection, over the values whose higher digits equal `prefix`. Finds the digit of width `bits` at `shift` of
// the value of rank shared.rank. Sets shared.digit, shared.rank (the rank among the values with that digit) and shared.equal
// (their number).
template <class EachValue>
DF_INLINE void select_digit(Shared& shared, uint32_t prefix, int shift, int bits, int64_t n, EachValue each_value) {
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kReduceThreads) shared.total[i] = 0;
  // 32-bit counters in the inner loop, emptied before they can overflow.
  constexpr int64_t kChunk = int64_t{1} << 31;
  for (int64_t chunk = 0; chunk < n; chunk += kChunk) {
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kReduceThreads) shared.count[i] = 0;
    __syncthreads();
    each_value(chunk, chunk + kChunk < n ? chunk + kChunk : n, [&](uint32_t value) {
      if (value >> shift >> bits == prefix) atomicAdd(&shared.count[(value >> shift) & ((1u << bits) - 1u)], 1u);
    });
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kReduceThreads) shared.total[i] += shared.count[i];
    __syncthreads();
  }
  constexpr int kRun = kDigits / kSums;
  if (threadIdx.x < kSums) {
    uint64_t sum = 0;
    for (int i = 0; i < kRun; ++i) sum += shared.total[static_cast<int>(threadIdx.x) * kRun + i];
    shared.part[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    uint64_t rank = shared.rank;
    int run = 0;
    while (run < kSums - 1 && rank >= shared.part[run]) rank -= shared.part[run++];
    int digit = run * kRun;
    while (digit < run * kRun + kRun - 1 && rank >= shared.total[digit]) rank -= shared.total[digit++];
    shared.rank = rank;
    shared.digit = static_cast<uint32_t>(digit);
    shared.equal = shared.total[digit];
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kReduceThreads, 1) reduce_kernel(const __grid_constant__ Launch l) {
  using One = CudaVector<1>;
  __shared__ Shared shared;
  const int64_t sample = blockIdx.x, n = l.elements;
  Current& current = l.current[sample];
  if (current.number < 0) return;
  Row& row = current.row.row;
  const auto kind = static_cast<Reduce>(row.reduce);
  if (kind == Reduce::kNone) return;
  const Tensors s = tensors_of(l, AnyTypes(l), sample);

  if (kind == Reduce::kDynamicThreshold) {
    // Values as bits: none is negative, so they are ordered like integers.
    const auto each_value = [&](int64_t begin, int64_t end, auto fn) {
      each_element(l, s, current.row, sample, begin, end, [&](const auto& io, const auto& terms, const One::F& m) {
        One::F x = One::set(0.0f);
        if (terms.has(kP)) x = io.x();
        const auto raw = raw_prediction<One>(row, terms, x, m);
        fn(static_cast<uint32_t>(CudaLane::bits(raw.v[0])) & 0x7fffffffu);
      });
    };
    const double position = quantile_position(row, n);
    const auto whole = static_cast<int64_t>(position);
    const int64_t below = whole < n - 1 ? whole : n - 1;
    if (threadIdx.x == 0) {
      shared.rank = static_cast<uint64_t>(below);
      shared.above = kInfinityBits;
      shared.finite = 1;
    }
    __syncthreads();
    each_value(0, n, [&](uint32_t value) {
      if (value >= kInfinityBits) atomicAnd(&shared.finite, 0);
    });
    __syncthreads();
    double quantile = 1.0;
    if (shared.finite) {
      uint32_t prefix = 0;
#pragma unroll 1
      for (int shift = 20; shift >= 0; shift -= 10) {
        const int bits = shift == 20 ? 11 : 10;
        select_digit(shared, prefix, shift, bits, n, each_value);
        prefix = prefix << bits | shared.digit;
        __syncthreads();  // every thread has read the digit before the next one is written
      }
      each_value(0, n, [&](uint32_t value) {
        if (value > prefix) atomicMin(&shared.above, value);
      });
      __syncthreads();
      const double low = static_cast<double>(CudaLane::from_bits(static_cast<int32_t>(prefix)));
      const bool last = below + 1 == n || shared.rank + 1 < shared.equal;
      const double high = last ? low : static_cast<double>(CudaLane::from_bits(static_cast<int32_t>(shared.above)));
      quantile = low + (position - static_cast<double>(below)) * (high - low);
    }
    __syncthreads();  // every thread has read the row before it changes
    if (threadIdx.x == 0) set_threshold(row, quantile);
  } else if (kind == Reduce::kGuidanceRescale) {
    // m is computed in float64: if all values are close together, the deviations of a rounded m would be its rounding errors.
    const AnyTypes types(l);
    const uint32_t weighed = current.row.terms;
    bool bad = false;
    const auto outputs = [&](int64_t element, double& m_0, double& m) {
      const CudaIo<1, AnyTypes> io{l, s, types, sample, element, &bad};
      m_0 = static_cast<double>(io.m(0).v[0]);
      m = 0.0;
      for (int j = 0; j < kMaxOutputs; ++j)
        if (weighed & (kG0 << j)) m += static_cast<double>(row.g[j]) * (j == 0 ? m_0 : static_cast<double>(io.m(j).v[0]));
    };
    double first_0, first;
    outputs(0, first_0, first);
    double sum_0 = 0.0, squares_0 = 0.0, sum = 0.0, squares = 0.0;
    for (int64_t at = threadIdx.x; at < n; at += kReduceThreads) {
      double m_0, m;
      outputs(at, m_0, m);
      m_0 -= first_0;
      m -= first;
      sum_0 += m_0;
      squares_0 += m_0 * m_0;
      sum += m;
      squares += m * m;
    }
    sum_0 = block_sum(shared, sum_0);
    squares_0 = block_sum(shared, squares_0);
    sum = block_sum(shared, sum);
    squares = block_sum(shared, squares);
    if (threadIdx.x == 0) rescale_guidance(row, variance_of(sum, squares, n), variance_of(sum_0, squares_0, n));
  } else {
    const int32_t given = given_noise(current.row);
    double squares_m = 0.0, squares_z = 0.0;
    each_element(l, s, current.row, sample, 0, n, [&](const auto& io, const auto&, const One::F& m) {
      squares_m += square(m.v[0]);
      squares_z += square(given < 0 ? io.z().v[0] : io.h(given).v[0]);
    });
    squares_m = block_sum(shared, squares_m);
    squares_z = block_sum(shared, squares_z);
    if (threadIdx.x == 0) set_langevin(row, squares_m, squares_z, given);
  }
  if (threadIdx.x == 0) {
    PreparedRow& ready = current.row;
    if (given_noise(ready) >= 0 && row.c[given_noise(ready)] == 0.0f) --ready.history_count;
    ready.terms = terms_after_reduction(ready.terms, terms_of(row, ready.history_count > 0, ready.keep_count > 0));
  }
}

// ---- normals --------------------------------------------------------------------------------------------

// The keys of a few samples, passed by value: the launch allocates no memory and can be captured.
struct Keys {
  static constexpr int kCount = 128;
  uint64_t seed[kCount];
  uint32_t index[kCount];
};

__global__ void __launch_bounds__(kStepThreads)
    normals_kernel(float* out, int64_t elements, uint64_t element_offset, const __grid_constant__ Keys keys, uint32_t row,
                   uint32_t stream, float scale) {
  float* const base = out + static_cast<int64_t>(blockIdx.y) * elements;
  const uint64_t seed = keys.seed[blockIdx.y];
  const uint32_t index = keys.index[blockIdx.y];
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const auto begin = static_cast<int64_t>(-element_offset % 4);
  const bool has_body = begin + 4 <= elements && reinterpret_cast<uintptr_t>(base + begin) % kVectorBytes == 0;
  const int64_t body = has_body ? (elements - begin) / 4 * 4 : 0;
  const auto put = [&]<int N>(std::integral_constant<int, N>, int64_t at) {
    const auto z = cuda_normals<N>(seed, element_offset + static_cast<uint64_t>(at), row, index, stream);
    store<N>(DType::kFloat32, base, at, CudaVector<N>::mul_f(CudaVector<N>::set(scale), z));
  };
  for (int64_t at = begin + thread * 4; at < begin + body; at += threads * 4) put(std::integral_constant<int, 4>{}, at);
  for (int64_t rest = thread; rest < elements - body; rest += threads)
    put(std::integral_constant<int, 1>{}, rest < begin ? rest : rest + body);
}

}  // namespace
}  // namespace df::cuda
