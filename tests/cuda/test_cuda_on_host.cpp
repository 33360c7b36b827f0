// The CUDA step on a device emulated on the host, bit for bit against the CPU's scalar kernel.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "check.h"
#include "fixtures.h"
#include "step/cuda/device_step.h"

using df::DType;
namespace cuda = df::cuda;

namespace {

cuda::Binding binding_of(const Case& what, const df::Buffers& b, int64_t capacity) {
  cuda::Binding binding;
  binding.buffers = b;
  binding.samples = what.samples;
  binding.elements = what.elements;
  binding.element_offset = what.element_offset;
  binding.state = what.state;
  binding.output = what.output;
  binding.capacity = capacity;
  return binding;
}

int64_t run_cuda(const Case& what, const df::Buffers& b, const uint64_t* seeds, const uint32_t* indices) {
  const auto step = cuda::bind(binding_of(what, b, 1), &what.row, 1, nullptr, seeds, indices, 0);
  const std::vector<int32_t> rows(static_cast<size_t>(what.samples), 0);
  const std::vector<uint32_t> noise_rows(static_cast<size_t>(what.samples), kNoiseRow);
  step->place(rows.data(), noise_rows.data(), 0);
  step->launch(0);
  const std::vector<int32_t> bad = step->first_bad_rows(0);
  const auto first = std::find_if(bad.begin(), bad.end(), [](int32_t row) { return row >= 0; });
  return first == bad.end() ? -1 : first - bad.begin();
}

void check_against_scalar(const Case& what, const std::string& name) {
  CHECK_WITH(apply(run_cuda, what) == apply(scalar_kernel(), what), " " + name + describe("cuda", what));
}

df::Row named(const char* name) {
  for (const auto& [known, row] : named_rows())
    if (known == name) return row;
  report_failure(__FILE__, __LINE__, "no such row", name);
  return empty_row();
}

const char* term_set_of(const df::Row& row, bool masked = false) {
  return cuda::kTermSetNames[static_cast<int>(cuda::variant_of(&row, 1, masked).term_set)];
}

}  // namespace

TEST(cuda_named_rows) {
  for (const auto& [name, row] : named_rows())
    for (const int64_t elements : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 64, 65, 129, 200})
      for (const uint64_t offset : {0u, 1u, 2u, 3u, 67u}) {
        Case what{row};
        what.elements = elements;
        what.element_offset = offset;
        what.samples = elements % 2 == 0 ? 1 : 3;
        what.masked = elements % 3 != 0;  // with a mask every row needs the general kernel
        check_against_scalar(what, name);
      }
}

TEST(cuda_named_rows_in_every_dtype) { for_rows_in_every_dtype(check_against_scalar); }

TEST(cuda_random_rows) {
  Random random(21);
  for (uint64_t i = 0; i < 1500; ++i) check_against_scalar(random_case(random, i), "random row " + std::to_string(i));
}

// More elements than the grid has threads: each thread processes several, in the step and in a reduction.
TEST(cuda_many_elements) {
  for (const int processors : {1, 3}) {
    on_host::processors = processors;
    for (const char* name : {"one step and noise", "eight registers", "dynamic threshold", "guidance rescale", "langevin"})
      for (const int64_t elements : {20'000, 20'003}) {
        Case what{named(name)};
        what.samples = 2;
        what.elements = elements;
        what.masked = false;
        check_against_scalar(what, name);
      }
  }
  on_host::processors = 1;
}

// More samples than the largest grid height.
TEST(cuda_many_samples) {
  Case what{named("one step and noise")};
  what.samples = 65'540;
  what.elements = 1;
  what.masked = false;
  check_against_scalar(what, "many samples");
}

// Words of the counter beyond 32 bits of elements.
TEST(cuda_far_elements) {
  for (const uint64_t offset : {(uint64_t{1} << 32) - 5, uint64_t{1} << 32, (uint64_t{1} << 34) - 70}) {
    Case what{named("one step and noise")};
    what.elements = 70;
    what.element_offset = offset;
    check_against_scalar(what, "far");
  }
}

// Output strides beyond 32 bits: only the last sample's output exists, and only that sample is active.
TEST(cuda_addresses_are_wide) {
  df::Row row = empty_row();
  row.b = 2.0f;
  Case what{row};
  what.samples = 3;
  what.elements = 8;
  float out[24] = {};
  alignas(16) float m[8];
  std::fill_n(m, 8, 1.5f);
  const int64_t stride = int64_t{1} << 33;
  df::Buffers b;
  b.x = b.out = out;
  b.outputs[0] = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(m) - static_cast<uintptr_t>(2 * stride * 4));
  b.output_stride = stride;
  const uint64_t seeds[3] = {};
  const uint32_t indices[3] = {}, noise_rows[3] = {};
  const auto step = cuda::bind(binding_of(what, b, 1), &row, 1, nullptr, seeds, indices, 0);
  const int32_t rows[3] = {-1, -1, 0};
  step->place(rows, noise_rows, 0);
  step->launch(0);
  on_host::finish();
  for (int i = 0; i < 24; ++i) CHECK(out[i] == (i < 16 ? 0.0f : 3.0f));
}

// A plan, one launch per row: row numbers advance on the device, samples are at different rows, one is inactive, and t follows.
TEST(cuda_rows_follow_on_the_device) {
  std::vector<df::Row> rows;
  for (const char* name : {"one step and noise", "history of two registers", "clipped raw epsilon", "langevin", "one step"})
    rows.push_back(named(name));
  const float times[5] = {900.0f, 700.5f, 500.0f, 300.0f, 100.0f};
  const auto count = static_cast<int64_t>(rows.size());
  constexpr int64_t samples = 4, elements = 37, values = samples * elements;
  Random random(3);
  std::vector<float> start(values), m0(values), m1(values), m2(values), h(2 * values);
  for (auto* tensor : {&start, &m0, &m1, &m2, &h})
    fill(random, tensor->data(), DType::kFloat32, static_cast<int64_t>(tensor->size()));
  const uint64_t seeds[samples] = {5, 6, 7, 8};
  const uint32_t indices[samples] = {0, 1, 2, 3};
  const int32_t first[samples] = {0, 2, -1, 4};
  const uint32_t first_noise[samples] = {10, 20, 30, 40};

  std::vector<float> on_cpu = start, h_on_cpu = h, on_gpu = start, h_on_gpu = h;
  df::Buffers b;
  b.outputs[0] = m0.data(), b.outputs[1] = m1.data(), b.outputs[2] = m2.data();
  b.output_stride = elements;
  b.register_count = 2;
  b.x = b.out = on_cpu.data();
  b.registers = h_on_cpu.data();
  df::Stepper stepper(scalar_kernel(), rows.data(), count, samples, elements, 0, DType::kFloat32, DType::kFloat32, b, seeds,
                      indices);
  for (int64_t tick = 0; tick < count + 1; ++tick) {
    int64_t at[samples];
    uint32_t noise[samples];
    for (int64_t i = 0; i < samples; ++i) {
      at[i] = first[i] < 0 || first[i] + tick >= count ? -1 : first[i] + tick;
      noise[i] = first_noise[i] + static_cast<uint32_t>(tick);
    }
    CHECK(stepper.run_each(at, noise) == -1);
  }

  Case what{rows[0]};
  what.samples = samples;
  what.elements = elements;
  b.x = b.out = on_gpu.data();
  b.registers = h_on_gpu.data();
  float t[samples] = {-1.0f, -1.0f, -1.0f, -1.0f};
  cuda::Binding binding = binding_of(what, b, count + 3);
  binding.t = t;
  const uint64_t other_seeds[samples] = {};
  const df::Row other = named("one step");
  const auto step = cuda::bind(binding, &other, 1, times, other_seeds, indices, 0);
  CHECK((step->variant() == cuda::Variant{cuda::TermSet::kOneStep, false}));
  step->load(rows.data(), count, times, 0);
  CHECK((step->variant() == cuda::Variant{cuda::TermSet::kGeneral, true}));
  step->seed(seeds, indices, 0);
  step->place(first, first_noise, 0);
  CHECK(t[0] == 900.0f && t[1] == 500.0f && t[3] == 100.0f);
  on_host::launches = 0;
  for (int64_t tick = 0; tick < count + 1; ++tick) {
    step->launch(0);
    on_host::finish();
    CHECK(t[0] == times[std::min<int64_t>(tick + 1, count - 1)]);
    CHECK(t[1] == times[std::min<int64_t>(tick + 3, count - 1)]);
    CHECK(t[3] == 100.0f);
  }
  CHECK(on_host::launches == 3 * (count + 1));  // reduce, step, settle
  CHECK(t[2] == -1.0f);
  CHECK(std::memcmp(on_cpu.data(), on_gpu.data(), values * sizeof(float)) == 0);
  CHECK(std::memcmp(h_on_cpu.data(), h_on_gpu.data(), 2 * values * sizeof(float)) == 0);
}

TEST(cuda_times_of_every_type) {
  df::Row row = empty_row();
  row.calls_network = 0;
  row.a = 1.0f;
  const df::Row rows[2] = {row, row};
  const float times[2] = {999.0f, 3.0f};
  const uint64_t seed = 0;
  const uint32_t index = 0;
  float state[4] = {};
  Case what{row};
  what.samples = 1;
  what.elements = 4;
  df::Buffers b;
  b.x = b.out = state;
  const auto follow = [&]<class T>(T, cuda::TimeType type) {
    T t{};
    cuda::Binding binding = binding_of(what, b, 2);
    binding.t = &t;
    binding.time_type = type;
    const auto step = cuda::bind(binding, rows, 2, times, &seed, &index, 0);
    const int32_t first = 0;
    const uint32_t noise_row = 0;
    step->place(&first, &noise_row, 0);
    const T before = t;
    step->launch(0);
    on_host::finish();
    CHECK(before == T(999) && t == T(3));
  };
  follow(float{}, cuda::TimeType::kFloat32);
  follow(double{}, cuda::TimeType::kFloat64);
  follow(int32_t{}, cuda::TimeType::kInt32);
  follow(int64_t{}, cuda::TimeType::kInt64);
  cuda::Binding binding = binding_of(what, b, 2);
  binding.t = state;
  CHECK_THROWS(cuda::bind(binding, rows, 2, nullptr, &seed, &index, 0), std::invalid_argument, "needs times");
}

TEST(cuda_finds_the_first_bad_row) {
  df::Row row = empty_row();
  row.a = row.b = 1.0f;
  const df::Row rows[3] = {row, row, row};
  const uint64_t seeds[3] = {};
  const uint32_t indices[3] = {0, 1, 2}, noise_rows[3] = {};
  const int32_t first[3] = {0, 0, 0};
  Case what{row};
  what.elements = 70;
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF})
    for (const int64_t at : {0, 31, 69}) {
      std::vector<float> x(210, 0.0f), m(210, 1.0f);
      df::Buffers b;
      b.x = b.out = x.data();
      b.outputs[0] = m.data();
      b.output_stride = 70;
      const auto step = cuda::bind(binding_of(what, b, 3), rows, 3, nullptr, seeds, indices, 0);
      step->place(first, noise_rows, 0);
      step->launch(0);
      on_host::finish();
      m[static_cast<size_t>(70 + at)] = value;
      step->launch(0);
      on_host::finish();
      m[static_cast<size_t>(140 + at)] = value;
      step->launch(0);
      CHECK((step->first_bad_rows(0) == std::vector<int32_t>{-1, 1, 2}));
      step->place(first, noise_rows, 0);
      CHECK((step->first_bad_rows(0) == std::vector<int32_t>{-1, -1, -1}));
      for (const auto reduce : {df::Reduce::kDynamicThreshold, df::Reduce::kGuidanceRescale, df::Reduce::kLangevin}) {
        df::Row reduced = row;
        reduced.d = reduced.q = 1.0f;
        reduced.reduce = static_cast<int32_t>(reduce);
        reduced.reduce_0 = 0.9f;
        reduced.reduce_1 = 2.0f;
        step->load(&reduced, 1, nullptr, 0);
        step->place(first, noise_rows, 0);
        step->launch(0);
        CHECK((step->first_bad_rows(0) == std::vector<int32_t>{-1, 0, 0}));
      }
    }
}

// Quantiles at every rank of a small sample with many equal values, against the CPU's selection.
TEST(cuda_quantiles) {
  for (int i = 0; i <= 20; ++i) {
    Case what{named("dynamic threshold")};
    what.row.reduce_0 = static_cast<float>(i) / 20.0f;
    what.row.reduce_1 = 100.0f;
    what.row.p = 1.0f, what.row.q = i % 2 == 0 ? 0.0f : 2.0f;
    what.elements = 1 + i * 7;
    what.state = what.output = i % 3 == 0 ? DType::kBFloat16 : DType::kFloat16;  // few values, so many are equal
    what.masked = false;
    check_against_scalar(what, "quantile");
  }
}

// The bytes of a step's tensors, counted at each access: the minimum for the row.
TEST(cuda_bytes_per_element) {
  const auto per_element = [](const char* name, DType type) {
    Case what{named(name)};
    what.samples = 2;
    what.elements = 1024;
    what.masked = false;
    what.state = what.output = type;
    on_host::bytes = 0;
    apply(run_cuda, what);
    const auto bytes = static_cast<double>(on_host::bytes) / (2 * 1024);
    return bytes;
  };
  CHECK(per_element("one step", DType::kFloat32) == 12.0);
  CHECK(per_element("one step and noise", DType::kFloat32) == 12.0);
  CHECK(per_element("clipped raw epsilon", DType::kFloat32) == 12.0);  // DDIM with a clip: eager torch moves 64 to 88
  CHECK(per_element("clipped raw epsilon", DType::kFloat16) == 6.0);
  CHECK(per_element("clipped raw epsilon and noise", DType::kBFloat16) == 6.0);
  CHECK(per_element("history of one register", DType::kFloat32) == 20.0);
  CHECK(per_element("clipped history of two registers", DType::kFloat32) == 24.0);
  CHECK(per_element("three outputs", DType::kFloat32) == 20.0);
  CHECK(per_element("no network", DType::kFloat32) == 8.0);
  CHECK(per_element("nothing", DType::kFloat32) == 4.0);
}

TEST(cuda_term_sets) {
  CHECK(std::string(term_set_of(named("one step"))) == "one_step");
  CHECK(std::string(term_set_of(named("clipped posterior"))) == "one_step");
  CHECK(std::string(term_set_of(named("clipped posterior and noise"))) == "one_step_noise");
  CHECK(std::string(term_set_of(named("clipped history of two registers"))) == "multistep");
  CHECK(std::string(term_set_of(named("learned variance"))) == "general");
  CHECK(std::string(term_set_of(named("langevin"))) == "general");
  CHECK(std::string(term_set_of(named("one step"), true)) == "general");
  CHECK(std::string(term_set_of(named("known region without noise"))) == "one_step");  // without a mask it is a plain step
}

TEST(cuda_normals_have_the_bits_of_the_cpu) {
  const uint64_t seeds[3] = {1, uint64_t{1} << 63, 1};
  const uint32_t indices[3] = {0, 7, 0xffffffffu};
  for (const int64_t elements : {1, 3, 4, 8, 37, 5000})
    for (const uint64_t offset : {0u, 1u, 3u, 4u, 6u}) {
      std::vector<float> expected(static_cast<size_t>(3 * elements)), got(expected.size());
      df::run_normals(scalar_kernel(), expected.data(), 3, elements, offset, seeds, indices, 9, 0, 2.5f);
      cuda::normals(got.data(), 3, elements, offset, seeds, indices, 9, 0, 2.5f, 0);
      on_host::finish();
      CHECK(std::memcmp(expected.data(), got.data(), expected.size() * sizeof(float)) == 0);
    }
  std::vector<uint64_t> many_seeds(300, 4);
  std::vector<uint32_t> many(300);
  for (uint32_t i = 0; i < 300; ++i) many[i] = i;
  std::vector<float> expected(600), got(600);
  df::run_normals(scalar_kernel(), expected.data(), 300, 2, 0, many_seeds.data(), many.data(), 0, 0, 1.0f);
  cuda::normals(got.data(), 300, 2, 0, many_seeds.data(), many.data(), 0, 0, 1.0f, 0);
  on_host::finish();
  CHECK(expected == got);
}

TEST(cuda_refuses_what_does_not_fit) {
  float x[16] = {}, host = 0.0f;
  const uint64_t seeds[2] = {};
  const uint32_t indices[2] = {}, noise_rows[2] = {};
  df::Row row = empty_row();
  row.calls_network = 0;
  row.a = 1.0f;
  const df::Row rows[3] = {row, row, row};
  Case what{row};
  what.samples = 2;
  what.elements = 8;
  df::Buffers b;
  b.x = b.out = x;
  const auto bind = [&](auto change) {
    cuda::Binding binding = binding_of(what, b, 2);
    change(binding);
    return cuda::bind(binding, rows, 2, nullptr, seeds, indices, 0);
  };
  CHECK_THROWS(bind([](auto& c) { c.samples = 0; }), std::invalid_argument, "number of samples");
  CHECK_THROWS(bind([](auto& c) { c.elements = 0; }), std::invalid_argument, "2**34");
  CHECK_THROWS(bind([](auto& c) { c.elements = (int64_t{1} << 34) + 1; }), std::invalid_argument, "2**34");
  CHECK_THROWS(bind([](auto& c) { c.element_offset = (uint64_t{1} << 34) - 7; }), std::invalid_argument, "2**34");
  CHECK_THROWS(bind([](auto& c) { c.element_offset = UINT64_MAX; }), std::invalid_argument, "2**34");
  CHECK_THROWS(bind([](auto& c) { c.capacity = 1; }), std::invalid_argument, "holds from 1 to 1");
  CHECK_THROWS(bind([](auto& c) { c.buffers.out = nullptr; }), std::invalid_argument, "no state");
  on_host::declare_host_memory(&host);
  CHECK_THROWS(bind([&](auto& c) { c.buffers.y = &host; }), std::invalid_argument, "y is not device memory");
  const auto step = bind([](auto&) {});
  CHECK_THROWS(step->load(rows, 3, nullptr, 0), std::invalid_argument, "holds from 1 to 2");
  df::Row needs = row;
  needs.c[2] = 1.0f;
  CHECK_THROWS(step->load(&needs, 1, nullptr, 0), std::invalid_argument, "register 2");
  CHECK(step->rows() == 2);
  const int32_t beyond[2] = {0, 2};
  CHECK_THROWS(step->place(beyond, noise_rows, 0), std::invalid_argument, "placed at row 2 of 2");
}

TEST(cuda_says_what_is_missing) {
  CHECK(cuda::unavailable_reason().empty());
  CHECK_THROWS(cuda::allocate(int64_t{1} << 40, 0), cuda::Error, "out of memory (cudaErrorMemoryAllocation)");
  CHECK_THROWS(cuda::allocate(1, 3), cuda::Unavailable, "there is no cuda:3; this machine has 1, from cuda:0");
}
