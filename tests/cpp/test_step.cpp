// Every kernel against the scalar one, to the bit, in buffers of the exact size.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "check.h"
#include "fixtures.h"
#include "step/step.h"
#include "threads/pool.h"

using df::DType;

namespace {

void check_against_scalar(const Case& what, const std::string& name) {
  const Outcome expected = apply(scalar_kernel(), what);
  for (const df::Kernel* kernel : runnable_kernels())
    if (kernel != &scalar_kernel()) CHECK_WITH(apply(*kernel, what) == expected, " " + name + describe(*kernel, what));
}

// Row b = 1: the state becomes the network's output, converted.
std::vector<uint8_t> convert(const df::Kernel& kernel, const std::vector<uint32_t>& patterns, DType from, DType to) {
  const auto count = static_cast<int64_t>(patterns.size());
  Exact m(count * bytes_of(from)), out(count * bytes_of(to));
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (from == DType::kFloat32) {
      m.as<uint32_t>()[i] = patterns[i];
    } else {
      m.as<uint16_t>()[i] = static_cast<uint16_t>(patterns[i]);
    }
  }
  df::Row row = empty_row();
  row.b = 1.0f;
  df::Buffers b;
  b.x = b.out = out.as<void>();
  b.outputs[0] = m.as<void>();
  b.output_stride = count;
  const uint64_t seed = 0;
  const uint32_t index = 0;
  df::Stepper(kernel, &row, 1, 1, count, 0, to, from, b, &seed, &index).run(0, 0);
  const auto* bytes = out.as<uint8_t>();
  return {bytes, bytes + count * bytes_of(to)};
}

}  // namespace

TEST(step_named_rows) {
  for (const auto& [name, row] : named_rows()) {
    for (const int64_t elements : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 200}) {
      for (const uint64_t offset : {0u, 1u, 2u, 3u, 67u}) {
        Case what{row};
        what.elements = elements;
        what.element_offset = offset;
        what.samples = elements % 2 == 0 ? 1 : 3;
        check_against_scalar(what, name);
      }
    }
  }
}

TEST(step_named_rows_in_every_dtype) { for_rows_in_every_dtype(check_against_scalar); }

TEST(step_random_rows) {
  Random random(20);
  for (uint64_t i = 0; i < 2000; ++i) check_against_scalar(random_case(random, i), "random row " + std::to_string(i));
}

TEST(step_far_elements) {
  for (const uint64_t offset : {(uint64_t{1} << 32) - 5, uint64_t{1} << 32, (uint64_t{1} << 34) - 70}) {
    Case what{named_rows()[3].second};
    what.row.s = 1.0f;
    what.elements = 70;
    what.element_offset = offset;
    check_against_scalar(what, "far");
  }
}

TEST(step_in_place_changes_no_bit) {
  for (const auto& [name, row] : named_rows())
    for (const df::Kernel* kernel : runnable_kernels()) {
      Case what{row};
      what.elements = 83;
      const Outcome separate = apply(*kernel, what);
      what.in_place = true;
      CHECK_WITH(apply(*kernel, what) == separate, " " + name + describe(*kernel, what));
    }
}

TEST(step_threads_change_no_bit) {
  for (const df::Kernel* kernel : runnable_kernels()) {
    for (const char* chosen : {"one step and noise", "eight registers", "dynamic threshold", "guidance rescale", "langevin"}) {
      const auto named = std::find_if(named_rows().begin(), named_rows().end(), [&](const auto& r) { return r.first == chosen; });
      Case what{named->second};
      what.samples = 2;
      what.elements = 70'001;
      df::set_num_threads(1);
      const Outcome one = apply(*kernel, what);
      for (const int threads : {2, 5}) {
        df::set_num_threads(threads);
        CHECK_WITH(apply(*kernel, what) == one, std::string(" ") + chosen + describe(*kernel, what));
      }
    }
  }
  df::set_num_threads(2);
}

// Two shards of a sample are the sample.
TEST(step_shards_agree) {
  df::Row row = empty_row();
  row.calls_network = 0;
  row.a = 1.0f;
  row.s = 1.0f;
  const uint64_t seed = 3;
  const uint32_t index = 8;
  const auto noisy = [&](const df::Kernel& kernel, uint64_t offset, int64_t elements) {
    Exact state(elements * 4);
    std::fill_n(state.as<float>(), elements, 0.5f);
    df::Buffers b;
    b.x = b.out = state.as<void>();
    df::Stepper(kernel, &row, 1, 1, elements, offset, DType::kFloat32, DType::kFloat32, b, &seed, &index).run(0, 2);
    return std::vector<float>(state.as<float>(), state.as<float>() + elements);
  };
  for (const df::Kernel* kernel : runnable_kernels()) {
    const std::vector<float> whole = noisy(*kernel, 0, 150);
    for (const int64_t cut : {1, 2, 3, 4, 7, 64, 149}) {
      std::vector<float> both = noisy(*kernel, 0, cut);
      const std::vector<float> rest = noisy(*kernel, static_cast<uint64_t>(cut), 150 - cut);
      both.insert(both.end(), rest.begin(), rest.end());
      CHECK_WITH(std::memcmp(both.data(), whole.data(), 150 * 4) == 0, std::string(" ") + kernel->name);
    }
  }
}

// Samples at different rows of one plan get the same results as alone.
TEST(step_mixed_rows) {
  std::vector<df::Row> rows;
  for (const auto& named : named_rows())
    if (!named.second.learned_s) rows.push_back(named.second);
  const auto row_count = static_cast<int64_t>(rows.size());
  const int64_t samples = row_count + 2, elements = 71;
  for (const df::Kernel* kernel : runnable_kernels()) {
    const auto run = [&](bool together) {
      Random random(5);
      Exact state(samples * elements * 4), m0(samples * elements * 4), m1(samples * elements * 4), m2(samples * elements * 4);
      Exact registers(df::kMaxRegisters * samples * elements * 4), y(samples * elements * 4), mask(samples * elements * 4);
      for (Exact* e : {&state, &m0, &m1, &m2, &y, &mask}) fill(random, e->as<void>(), DType::kFloat32, samples * elements);
      fill(random, registers.as<void>(), DType::kFloat32, df::kMaxRegisters * samples * elements);
      df::Buffers b;
      b.x = b.out = state.as<void>();
      b.outputs[0] = m0.as<void>(), b.outputs[1] = m1.as<void>(), b.outputs[2] = m2.as<void>();
      b.output_stride = elements;
      b.registers = registers.as<float>();
      b.register_count = df::kMaxRegisters;
      b.y = y.as<float>(), b.mask = mask.as<float>();
      std::vector<uint64_t> seeds(static_cast<size_t>(samples), 9);
      std::vector<uint32_t> indices(static_cast<size_t>(samples)), noise_rows(static_cast<size_t>(samples));
      std::vector<int64_t> chosen(static_cast<size_t>(samples), -1);
      for (size_t i = 0; i < chosen.size(); ++i) {
        indices[i] = static_cast<uint32_t>(i);
        noise_rows[i] = static_cast<uint32_t>(100 + i);
        if (i >= 2) chosen[i] = static_cast<int64_t>(i) - 2;  // the first two are inactive
      }
      df::Stepper stepper(*kernel, rows.data(), row_count, samples, elements, 1, DType::kFloat32, DType::kFloat32, b, seeds.data(),
                          indices.data());
      if (together) {
        CHECK(stepper.run_each(chosen.data(), noise_rows.data()) == -1);
      } else {
        for (size_t i = 0; i < chosen.size(); ++i) {
          std::vector<int64_t> alone(chosen.size(), -1);
          alone[i] = chosen[i];
          CHECK(stepper.run_each(alone.data(), noise_rows.data()) == -1);
        }
      }
      std::vector<float> left(state.as<float>(), state.as<float>() + samples * elements);
      left.insert(left.end(), registers.as<float>(), registers.as<float>() + df::kMaxRegisters * samples * elements);
      return left;
    };
    const std::vector<float> together = run(true), alone = run(false);
    CHECK_WITH(std::memcmp(together.data(), alone.data(), together.size() * 4) == 0, std::string(" ") + kernel->name);
  }
}

// Outputs given by entry number equal outputs in order; seeds can be replaced.
TEST(step_outputs_by_number) {
  df::Row rows[2] = {empty_row(), empty_row()};
  rows[0].a = 0.5f, rows[0].b = 2.0f, rows[0].g[1] = -1.0f, rows[0].s = 1.0f;
  rows[1].b = 1.0f, rows[1].learned_s = 1, rows[1].log_s_b = 0.5f;
  const int64_t elements = 37, stride = 2 * elements, evaluations = 5;
  const uint64_t seeds[2] = {1, 2}, other_seeds[2] = {3, 3};
  const uint32_t indices[2] = {0, 1}, noise_rows[2] = {6, 7};
  const int64_t chosen[2] = {0, 1}, numbers[2 * df::kMaxOutputs] = {4, 1, -1, 3, -1, -1};
  Random random(9);
  Exact memory(evaluations * stride * 4), start(2 * elements * 4);
  fill(random, memory.as<void>(), DType::kFloat32, evaluations * stride);
  fill(random, start.as<void>(), DType::kFloat32, 2 * elements);
  const auto evaluation = [&](int64_t number) { return memory.as<float>() + number * stride; };
  for (const df::Kernel* kernel : runnable_kernels()) {
    Exact out(2 * elements * 4), aside(2 * elements * 4), m0(2 * stride * 4), m1(2 * stride * 4);
    df::Buffers b;
    b.x = start.as<void>();
    b.output_stride = stride;
    b.output_count = evaluations;
    b.variance_offset = elements;
    b.out = out.as<void>();
    b.outputs[0] = b.outputs[1] = memory.as<void>();
    df::Stepper by_number(*kernel, rows, 2, 2, elements, 0, DType::kFloat32, DType::kFloat32, b, other_seeds, indices);
    by_number.seed(seeds, indices);
    CHECK(by_number.run_each(chosen, noise_rows, numbers) == -1);

    std::copy_n(evaluation(4), stride, m0.as<float>());
    std::copy_n(evaluation(3), stride, m0.as<float>() + stride);
    std::copy_n(evaluation(1), stride, m1.as<float>());
    b.out = aside.as<void>();
    b.outputs[0] = m0.as<void>(), b.outputs[1] = m1.as<void>();
    df::Stepper side_by_side(*kernel, rows, 2, 2, elements, 0, DType::kFloat32, DType::kFloat32, b, seeds, indices);
    CHECK(side_by_side.run_each(chosen, noise_rows) == -1);
    CHECK_WITH(std::memcmp(out.as<void>(), aside.as<void>(), static_cast<size_t>(2 * elements * 4)) == 0,
               std::string(" ") + kernel->name);

    const int64_t missing[2 * df::kMaxOutputs] = {4, -1, -1, 3, -1, -1}, unlearned[2 * df::kMaxOutputs] = {4, 1, -1, -1, 2, -1};
    CHECK_THROWS(by_number.run_each(chosen, noise_rows, missing), std::invalid_argument, "network output 1");
    CHECK_THROWS(by_number.run_each(chosen, noise_rows, unlearned), std::invalid_argument, "network output 0");
    const int64_t beyond[2 * df::kMaxOutputs] = {4, 1, -1, evaluations, -1, -1};
    CHECK_THROWS(by_number.run_each(chosen, noise_rows, beyond), std::invalid_argument, "there is no network output number 5");
  }
}

TEST(step_finds_the_bad_sample) {
  df::Row row = empty_row();
  row.a = row.b = 1.0f;
  const uint64_t seeds[3] = {};
  const uint32_t indices[3] = {0, 1, 2};
  for (const df::Kernel* kernel : runnable_kernels())
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF})
      for (const int64_t at : {0, 31, 69}) {
        Exact x(3 * 70 * 4), m(3 * 70 * 4);
        std::fill_n(x.as<float>(), 210, 0.0f);
        std::fill_n(m.as<float>(), 210, 1.0f);
        m.as<float>()[70 + at] = value;
        df::Buffers b;
        b.x = b.out = x.as<void>();
        b.outputs[0] = m.as<void>();
        b.output_stride = 70;
        df::Stepper stepper(*kernel, &row, 1, 3, 70, 0, DType::kFloat32, DType::kFloat32, b, seeds, indices);
        CHECK(stepper.run(0, 0) == 1);
        CHECK(stepper.bad_samples() == std::vector<int64_t>{1});
        const int64_t each[3] = {-1, 0, 0};
        CHECK(stepper.run_each(each, indices) == 1);
        // The reductions read it too, and must terminate.
        for (const auto reduce : {df::Reduce::kDynamicThreshold, df::Reduce::kGuidanceRescale, df::Reduce::kLangevin}) {
          df::Row reduced = row;
          reduced.d = reduced.q = 1.0f;
          reduced.reduce = static_cast<int32_t>(reduce);
          reduced.reduce_0 = 0.9f;
          reduced.reduce_1 = 2.0f;
          CHECK(df::Stepper(*kernel, &reduced, 1, 3, 70, 0, DType::kFloat32, DType::kFloat32, b, seeds, indices).run(0, 0) == 1);
        }
      }
}

// Whatever coefficients a reduction sets, the step reads no tensor that the row does not use.
TEST(step_reductions_lead_to_no_other_tensor) {
  const float odd[] = {0.5f, HUGE_VALF, -HUGE_VALF, NAN, 1e38f, -1.0f};
  for (const df::Kernel* kernel : runnable_kernels())
    for (const auto reduce : {df::Reduce::kGuidanceRescale, df::Reduce::kLangevin, df::Reduce::kDynamicThreshold})
      for (const float value : odd)
        for (const float output : odd) {
          df::Row row = empty_row();
          row.b = 1.0f;
          row.reduce = static_cast<int32_t>(reduce);
          row.reduce_0 = reduce == df::Reduce::kDynamicThreshold ? 0.5f : value;
          row.reduce_1 = value;
          const df::PreparedRow prepared = df::prepare_row(row);
          float x[20] = {}, m[20], out[20];
          std::fill_n(m, 20, output);
          m[3] = 1.0f;
          df::Sample sample{};
          sample.row = &prepared;
          sample.x = x;
          sample.out = out;
          sample.m[0] = m;
          df::run_step(*kernel, {&sample, 1, 20, 0, DType::kFloat32, DType::kFloat32, nullptr});
        }
}

// A constant output keeps its weights, exactly, whatever the guidance; and a small deviation is not taken for a constant.
TEST(step_rescales_nearly_constant_outputs) {
  const uint64_t seed = 0;
  const uint32_t index = 0;
  for (const df::Kernel* kernel : runnable_kernels())
    for (const float scale : {0.0f, 3.0f, 7.5f})
      for (const int64_t n : {1, 7, 64, 1000}) {
        std::vector<float> m0(static_cast<size_t>(n), 0.7f), m1(static_cast<size_t>(n), 0.2f), out(static_cast<size_t>(n));
        df::Row rows[2] = {empty_row(), empty_row()};
        for (df::Row& row : rows) row.b = 1.0f, row.g[0] = scale, row.g[1] = 1.0f - scale;
        rows[1].reduce = static_cast<int32_t>(df::Reduce::kGuidanceRescale);
        rows[1].reduce_0 = 1.0f;
        df::Buffers b;
        b.x = b.out = out.data();
        b.outputs[0] = m0.data(), b.outputs[1] = m1.data();
        b.output_stride = n;
        df::Stepper stepper(*kernel, rows, 2, 1, n, 0, DType::kFloat32, DType::kFloat32, b, &seed, &index);
        stepper.run(0, 0);
        const std::vector<float> plain = out;
        stepper.run(1, 0);
        CHECK_WITH(out == plain, std::string(" ") + kernel->name);
        if (n == 1) continue;
        // One value differs: it alone causes both deviations, whose ratio is its weight.
        m0[0] += 1e-6f;
        stepper.run(1, 0);
        const float weight = scale == 0.0f ? 1.0f : 1.0f / scale;
        CHECK_WITH(std::fabs(out[1] / (plain[1] * weight) - 1.0f) < 1e-6f, std::string(" ") + kernel->name);
      }
}

TEST(step_refuses_missing_tensors) {
  const uint64_t seed = 0;
  const uint32_t index = 0;
  float x[8] = {}, h[8] = {};
  df::Buffers b;
  b.x = b.out = x;
  b.outputs[0] = x;
  b.output_stride = 8;
  b.registers = h;
  b.register_count = 1;
  const auto bind = [&](auto change) {
    df::Row row = empty_row();
    change(row);
    df::Stepper(scalar_kernel(), &row, 1, 1, 8, 0, DType::kFloat32, DType::kFloat32, b, &seed, &index);
  };
  CHECK_THROWS(bind([](df::Row& r) { r.g[2] = 1.0f; }), std::invalid_argument, "network output 2");
  CHECK_THROWS(bind([](df::Row& r) { r.learned_s = 1; }), std::invalid_argument, "variance channel");
  CHECK_THROWS(bind([](df::Row& r) { r.c[1] = 1.0f; }), std::invalid_argument, "register 1");
  CHECK_THROWS(bind([](df::Row& r) { r.write = 1; }), std::invalid_argument, "register 1");
  CHECK_THROWS(bind([](df::Row& r) {
                 r.write = 0;
                 r.f[7] = 1.0f;
               }),
               std::invalid_argument, "register 7");
  const auto reduced = [&](df::Reduce reduce, float first) {
    bind([&](df::Row& r) {
      r.reduce = static_cast<int32_t>(reduce);
      r.reduce_0 = first;
    });
  };
  for (const float ratio : {-0.1f, 1.1f, HUGE_VALF, NAN}) {
    CHECK_THROWS(reduced(df::Reduce::kDynamicThreshold, ratio), std::invalid_argument, "dynamic threshold at the quantile");
    CHECK_THROWS(reduced(df::Reduce::kGuidanceRescale, ratio), std::invalid_argument, "guidance rescale with phi");
  }
  CHECK_THROWS(reduced(df::Reduce::kLangevinGiven, 0.1f), std::invalid_argument, "a register with the noise");
  CHECK_THROWS(reduced(static_cast<df::Reduce>(5), 0.1f), std::invalid_argument, "unknown reduction 5");
  CHECK_THROWS(bind([](df::Row& r) {
                 r.g[0] = 0.0f;
                 r.g[1] = NAN;
               }),
               std::invalid_argument, "network output 1");
  b.mask = x;
  CHECK_THROWS(bind([](df::Row& r) { r.known_y = 1.0f; }), std::invalid_argument, "known region");
  b.x = nullptr;
  CHECK_THROWS(bind([](df::Row&) {}), std::invalid_argument, "a state");
}

// Every 16-bit pattern read; every kind of float32 written: the exponents with mantissas around each rounding boundary.
TEST(step_conversions) {
  std::vector<uint32_t> half, single;
  for (uint32_t i = 0; i < 65536; ++i) half.push_back(i);
  for (uint32_t top = 0; top < 65536; top += 3)
    for (const uint32_t low : {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      single.push_back(top << 16 | low);
  for (const df::Kernel* kernel : runnable_kernels()) {
    for (const DType from : kTypes)
      for (const DType to : kTypes) {
        const auto& patterns = from == DType::kFloat32 ? single : half;
        CHECK_WITH(convert(*kernel, patterns, from, to) == convert(scalar_kernel(), patterns, from, to),
                   std::string(" ") + kernel->name + " " + std::to_string(static_cast<int>(from)) + " to " +
                       std::to_string(static_cast<int>(to)));
      }
    // The round trip is exact: every 16-bit value is a float32.
    const std::vector<uint8_t> back = convert(*kernel, half, DType::kFloat16, DType::kFloat16);
    for (uint32_t i = 0; i < 65536; ++i) {
      const bool nan = (i & 0x7fffu) > 0x7c00u;
      uint16_t value;
      std::memcpy(&value, back.data() + 2 * i, 2);
      CHECK(nan ? value == (i | 0x200u) : value == i);
    }
  }
}

// A value equal to a bound is returned unchanged (shown by the sign of zero), and NaN passes.
TEST(step_clamp) {
  df::Row row = empty_row();
  row.q = row.d = 1.0f;
  row.lo = -0.0f;
  row.hi = 0.0f;
  const uint64_t seed = 0;
  const uint32_t index = 0;
  for (const df::Kernel* kernel : runnable_kernels()) {
    float m[17] = {0.0f, -0.0f, 3.0f, -3.0f, NAN}, out[17];
    df::Buffers b;
    b.x = b.out = out;
    b.outputs[0] = m;
    b.output_stride = 17;
    df::Stepper(*kernel, &row, 1, 1, 17, 0, DType::kFloat32, DType::kFloat32, b, &seed, &index).run(0, 0);
    CHECK(out[0] == 0.0f && !std::signbit(out[0]));
    CHECK(out[1] == 0.0f && std::signbit(out[1]));
    CHECK(out[2] == 0.0f && out[3] == 0.0f);
    CHECK(std::isnan(out[4]));
  }
}
