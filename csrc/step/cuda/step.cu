// The host side of the CUDA step: binding and launches.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "step/cuda/device.h"
#include "step/cuda/device_step.h"
#include "step/cuda/kernels.h"

namespace df::cuda {
namespace {

template <class... Parameters, class... Arguments>
void launch_kernel(void (*kernel)(Parameters...), dim3 grid, int threads, StreamHandle stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream_of(stream);
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launching a kernel");
}

// Loads the kernel now: the first launch may be inside a capture, where loading is not allowed.
template <class Kernel>
void load_kernel(Kernel* kernel) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), "loading a kernel");
}

using StepKernel = void (*)(Launch);

// The kernel for tensors of one dtype. The general kernel serves every pair of dtypes.
template <class Types>
StepKernel step_kernel_of(TermSet term_set) {
  switch (term_set) {
    case TermSet::kOneStep: return step_kernel<TermSet::kOneStep, Types>;
    case TermSet::kOneStepNoise: return step_kernel<TermSet::kOneStepNoise, Types>;
    case TermSet::kMultistep: return step_kernel<TermSet::kMultistep, Types>;
    case TermSet::kGeneral: break;
  }
  return step_kernel<TermSet::kGeneral, AnyTypes>;
}

StepKernel step_kernel_of(TermSet term_set, DType state, DType output) {
  if (state != output) return step_kernel<TermSet::kGeneral, AnyTypes>;
  switch (state) {
    case DType::kFloat32:
      if (term_set == TermSet::kGeneral) return step_kernel<TermSet::kGeneral, FixedTypes<DType::kFloat32, DType::kFloat32>>;
      return step_kernel_of<FixedTypes<DType::kFloat32, DType::kFloat32>>(term_set);
    case DType::kFloat16: return step_kernel_of<FixedTypes<DType::kFloat16, DType::kFloat16>>(term_set);
    case DType::kBFloat16: return step_kernel_of<FixedTypes<DType::kBFloat16, DType::kBFloat16>>(term_set);
  }
  return nullptr;
}

// A grid over pieces of a sample (x) and samples (y). If there are enough groups to fill the device several times, a thread
// processes several of them, so that blocks read their row and tensors' addresses less often.
struct Shape {
  dim3 grid;
  int threads;
};

constexpr int64_t kMaxGridY = 65535;
constexpr int64_t kBlocksPerProcessor = 16;

Shape shape_of(int64_t samples, int64_t elements, uint64_t element_offset, int per_thread, int processors) {
  const int64_t groups = (elements + static_cast<int64_t>(element_offset % 4) + per_thread - 1) / per_thread;
  const auto threads = static_cast<int>(std::min<int64_t>(kStepThreads, (groups + 31) / 32 * 32));
  const int64_t pieces = (groups + threads - 1) / threads;
  const int64_t wanted = std::max<int64_t>(1, (processors * kBlocksPerProcessor + samples - 1) / samples);
  return {dim3(static_cast<unsigned>(std::min(pieces, wanted)), static_cast<unsigned>(std::min(samples, kMaxGridY))), threads};
}

void check_sizes(int64_t samples, int64_t elements, uint64_t element_offset) {
  constexpr uint64_t kMaxElements = uint64_t{1} << 34;  // four per counter, and the counter's word has 32 bits
  if (samples < 1 || samples > INT32_MAX) throw std::invalid_argument("the number of samples must be from 1 to 2**31 - 1");
  if (elements < 1 || static_cast<uint64_t>(elements) > kMaxElements ||
      element_offset > kMaxElements - static_cast<uint64_t>(elements))
    throw std::invalid_argument("a sample must have at least one element, and its elements must be from 0 to 2**34 - 1");
}

int check_binding(const Binding& binding) {
  check_sizes(binding.samples, binding.elements, binding.element_offset);
  if (binding.capacity < 1 || binding.capacity > INT32_MAX)
    throw std::invalid_argument("the capacity must be from 1 to 2**31 - 1 rows");
  const Buffers& b = binding.buffers;
  if (b.x == nullptr || b.out == nullptr) throw std::invalid_argument("there is no state");
  const int device = device_of(b.x, "x");
  const auto same = [&](const void* memory, const char* name) {
    if (memory != nullptr && device_of(memory, name) != device)
      throw std::invalid_argument(std::string(name) + " is on another device than x");
  };
  same(b.out, "out");
  for (const void* m : b.outputs) same(m, "a network output");
  same(b.registers, "registers");
  same(b.y, "y");
  same(b.mask, "mask");
  same(binding.t, "t");
  return device;
}

// Offsets of arrays in one piece of memory.
class Layout {
 public:
  template <class T>
  int64_t add(int64_t count) {
    const int64_t at = bytes_;
    bytes_ = (at + count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

class BoundStep final : public DeviceStep {
 public:
  BoundStep(const Binding& binding, const Row* rows, int64_t count, const float* times, const uint64_t* seeds,
            const uint32_t* indices, StreamHandle stream)
      : binding_(binding), device_(check_binding(binding)), launch_{} {
    const OnDevice on(device_);
    Layout layout;
    const int64_t n = binding.samples;
    const int64_t row_count = layout.add<int32_t>(1), table = layout.add<PreparedRow>(binding.capacity);
    const int64_t time = layout.add<float>(binding.capacity), counter = layout.add<int32_t>(n), noise_row = layout.add<uint32_t>(n);
    const int64_t seed_at = layout.add<uint64_t>(n), index = layout.add<uint32_t>(n), first_bad = layout.add<int32_t>(n);
    const int64_t current = layout.add<Current>(n);
    // Check the rows before allocating memory.
    const std::vector<PreparedRow> checked = fitting(rows, count, times);
    memory_ = allocate(layout.bytes(), device_);
    launch_.b = binding.buffers;
    launch_.samples = n;
    launch_.elements = binding.elements;
    launch_.element_offset = binding.element_offset;
    launch_.t = binding.t;
    launch_.time_type = binding.time_type;
    launch_.state = binding.state;
    launch_.output = binding.output;
    launch_.row_count = at<int32_t>(row_count);
    launch_.table = at<PreparedRow>(table);
    launch_.times = at<float>(time);
    launch_.counter = at<int32_t>(counter);
    launch_.noise_row = at<uint32_t>(noise_row);
    launch_.seed = at<uint64_t>(seed_at);
    launch_.index = at<uint32_t>(index);
    launch_.first_bad = at<int32_t>(first_bad);
    launch_.current = at<Current>(current);
    const int per_thread = binding.state == DType::kFloat32 && binding.output == DType::kFloat32 ? 4 : 8;
    shape_ = shape_of(n, binding.elements, binding.element_offset, per_thread, attribute(cudaDevAttrMultiProcessorCount, device_));
    load_kernel(settle_kernel);
    seed(seeds, indices, stream);
    const std::vector<int32_t> first(static_cast<size_t>(n), -1);
    const std::vector<uint32_t> noise(static_cast<size_t>(n), 0);
    upload(launch_.counter, first.data(), n, stream);
    upload(launch_.noise_row, noise.data(), n, stream);
    clear_bad(stream);
    put(checked, rows, times, stream);
  }

  Variant variant() const override { return variant_; }
  int64_t rows() const override { return rows_; }
  int64_t samples() const override { return binding_.samples; }
  int64_t capacity() const override { return binding_.capacity; }
  size_t outputs() const override {
    const auto& all = binding_.buffers.outputs;
    return static_cast<size_t>(std::find(all, all + kMaxOutputs, nullptr) - all);
  }

  void load(const Row* rows, int64_t count, const float* times, StreamHandle stream) override {
    const std::vector<PreparedRow> checked = fitting(rows, count, times);
    const OnDevice on(device_);
    put(checked, rows, times, stream);
  }

  void seed(const uint64_t* seeds, const uint32_t* indices, StreamHandle stream) override {
    const OnDevice on(device_);
    upload(launch_.seed, seeds, binding_.samples, stream);
    upload(launch_.index, indices, binding_.samples, stream);
    wait(stream);
  }

  void place(const int32_t* rows, const uint32_t* noise_rows, StreamHandle stream) override {
    for (int64_t i = 0; i < binding_.samples; ++i)
      if (rows[i] >= rows_)
        throw std::invalid_argument("sample " + std::to_string(i) + " is placed at row " + std::to_string(rows[i]) + " of " +
                                    std::to_string(rows_));
    const OnDevice on(device_);
    upload(launch_.counter, rows, binding_.samples, stream);
    upload(launch_.noise_row, noise_rows, binding_.samples, stream);
    clear_bad(stream);
    settle(false, stream);
    wait(stream);
  }

  void launch(StreamHandle stream, const void* const* outputs) override {
    const OnDevice on(device_);
    Launch now = launch_;
    for (int j = 0; j < kMaxOutputs && outputs != nullptr; ++j) now.b.outputs[j] = outputs[j];
    if (variant_.reduces) launch_kernel(reduce_kernel, dim3(static_cast<unsigned>(binding_.samples)), kReduceThreads, stream, now);
    launch_kernel(kernel_, shape_.grid, shape_.threads, stream, now);
    settle(true, stream);
  }

  std::vector<int32_t> first_bad_rows(StreamHandle stream) const override {
    std::vector<int32_t> bad(static_cast<size_t>(binding_.samples));
    const OnDevice on(device_);
    check(cudaMemcpyAsync(bad.data(), launch_.first_bad, bad.size() * sizeof(int32_t), cudaMemcpyDeviceToHost, stream_of(stream)),
          "reading the bad rows");
    check(cudaStreamSynchronize(stream_of(stream)), "waiting for the steps");
    for (size_t i = 0; i < bad.size(); ++i)
      if (bad[i] == kNotCaptured)
        throw Error("sample " + std::to_string(i) +
                    " is at a row that the launch does not support: a graph captured for another variant was replayed");
    return bad;
  }

 private:
  template <class T>
  T* at(int64_t bytes) const {
    return reinterpret_cast<T*>(static_cast<unsigned char*>(memory_->data()) + bytes);
  }

  template <class T>
  void upload(const T* to, const std::remove_const_t<T>* from, int64_t count, StreamHandle stream) {
    // CUDA may read the source later: the caller waits before it frees it.
    check(cudaMemcpyAsync(const_cast<std::remove_const_t<T>*>(to), from, static_cast<size_t>(count) * sizeof(T),
                          cudaMemcpyHostToDevice, stream_of(stream)),
          "copying to the device");
  }

  std::vector<PreparedRow> fitting(const Row* rows, int64_t count, const float* times) const {
    if (count < 1 || count > binding_.capacity)
      throw std::invalid_argument("a table of " + std::to_string(count) + " rows; the step holds from 1 to " +
                                  std::to_string(binding_.capacity));
    if (binding_.t != nullptr && times == nullptr) throw std::invalid_argument("the step sets t and needs times, one per row");
    return prepare_rows(rows, count, binding_.buffers);
  }

  void put(const std::vector<PreparedRow>& table, const Row* rows, const float* times, StreamHandle stream) {
    const auto count = static_cast<int64_t>(table.size());
    const auto number = static_cast<int32_t>(count);
    const Variant variant = variant_of(rows, count, binding_.buffers.mask != nullptr);
    const StepKernel kernel = step_kernel_of(variant.term_set, binding_.state, binding_.output);
    load_kernel(kernel);
    if (variant.reduces) load_kernel(reduce_kernel);
    upload(launch_.row_count, &number, 1, stream);
    upload(launch_.table, table.data(), count, stream);
    if (times != nullptr) upload(launch_.times, times, count, stream);
    rows_ = count;
    variant_ = variant;
    kernel_ = kernel;
    launch_.reduces = variant.reduces;
    settle(false, stream);
    wait(stream);
  }

  static void wait(StreamHandle stream) { check(cudaStreamSynchronize(stream_of(stream)), "copying to the device"); }

  void settle(bool advance, StreamHandle stream) {
    launch_kernel(settle_kernel, dim3(static_cast<unsigned>(binding_.samples)), kSettleThreads, stream, launch_, advance);
  }

  void clear_bad(StreamHandle stream) {
    // Bytes 0xff are kNoneBad.
    check(cudaMemsetAsync(launch_.first_bad, 0xff, static_cast<size_t>(binding_.samples) * sizeof(int32_t), stream_of(stream)),
          "clearing the bad rows");
  }

  const Binding binding_;
  const int device_;
  std::unique_ptr<Memory> memory_;
  Launch launch_;
  Shape shape_{};
  StepKernel kernel_ = nullptr;
  Variant variant_{};
  int64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<DeviceStep> bind(const Binding& binding, const Row* rows, int64_t count, const float* times, const uint64_t* seeds,
                                 const uint32_t* indices, StreamHandle stream) {
  require_available();
  return std::make_unique<BoundStep>(binding, rows, count, times, seeds, indices, stream);
}

void normals(float* out, int64_t count, int64_t elements, uint64_t element_offset, const uint64_t* seeds, const uint32_t* indices,
             uint32_t row, uint32_t stream_number, float scale, StreamHandle stream) {
  require_available();
  check_sizes(count, elements, element_offset);
  const int device = device_of(out, "out");
  const OnDevice on(device);
  const int processors = attribute(cudaDevAttrMultiProcessorCount, device);
  for (int64_t first = 0; first < count; first += Keys::kCount) {
    const int64_t samples = std::min<int64_t>(Keys::kCount, count - first);
    Keys keys{};
    std::copy_n(seeds + first, samples, keys.seed);
    std::copy_n(indices + first, samples, keys.index);
    const Shape shape = shape_of(samples, elements, element_offset, 4, processors);
    launch_kernel(normals_kernel, shape.grid, shape.threads, stream, out + first * elements, elements, element_offset, keys, row,
                  stream_number, scale);
  }
}

}  // namespace df::cuda
