#include "fixtures.h"

#include <algorithm>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>

using df::DType;
using df::Reduce;
using df::Row;

namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Row reduced(Row row, Reduce reduce, float first, float second) {
  row.reduce = static_cast<int32_t>(reduce);
  row.reduce_0 = first;
  row.reduce_1 = second;
  return row;
}

std::vector<std::pair<std::string, Row>> make_named_rows() {
  std::vector<std::pair<std::string, Row>> rows;
  const auto add = [&](const char* name, Row row) { rows.emplace_back(name, row); };
  const auto with = [](auto change) {
    Row row = empty_row();
    change(row);
    return row;
  };
  const auto step = [](Row& r) { r.a = 0.9f, r.b = -0.3f; };
  const auto clip = [](Row& r) { r.p = 1.5f, r.q = -1.1f, r.lo = -1.0f, r.hi = 1.0f; };

  add("nothing", with([](Row& r) { r.calls_network = 0; }));
  add("no network", with([](Row& r) { r.calls_network = 0, r.a = 1.1f, r.s = 0.2f; }));
  // The specialised loops, one each.
  for (const bool noise : {false, true}) {
    const float s = noise ? 0.3f : 0.0f;
    const std::string suffix = noise ? " and noise" : "";
    rows.emplace_back("one step" + suffix, with([&](Row& r) { step(r), r.s = s; }));
    rows.emplace_back("clipped raw epsilon" + suffix, with([&](Row& r) { clip(r), r.b = 0.4f, r.d = 0.8f, r.s = s; }));
    rows.emplace_back("clipped posterior" + suffix, with([&](Row& r) { clip(r), r.a = 0.4f, r.d = 0.8f, r.s = s; }));
  }
  add("clipped last", with([&](Row& r) { clip(r), r.d = 1.0f; }));
  for (const int count : {1, 2}) {
    const std::string suffix = count == 1 ? " of one register" : " of two registers";
    const auto history = [&](Row& r) {
      r.c[0] = 0.7f, r.write = count - 1;
      if (count == 2) r.c[1] = -0.2f;
    };
    rows.emplace_back("history" + suffix, with([&](Row& r) { step(r), history(r), r.e_m = 1.0f; }));
    rows.emplace_back("history and state" + suffix, with([&](Row& r) { step(r), history(r), r.e_x = 0.5f, r.e_m = 1.0f; }));
    rows.emplace_back("clipped history" + suffix, with([&](Row& r) { clip(r), history(r), r.a = 0.4f, r.d = 0.8f, r.e_0 = 1.0f; }));
  }
  // The general loop.
  add("rescaled clip", with([&](Row& r) { clip(r), r.hi = 2.0f, r.r = 0.7f, r.d = 1.0f; }));
  add("three outputs", with([&](Row& r) { step(r), r.g[0] = 2.0f, r.g[1] = -0.5f, r.g[2] = -0.5f; }));
  add("second output alone", with([&](Row& r) { step(r), r.g[0] = 0.0f, r.g[1] = 1.0f; }));
  add("eight registers", with([&](Row& r) {
        step(r), r.p = 1.0f, r.q = -0.5f, r.write = 7, r.e_x = 0.1f, r.e_m = 0.2f, r.e_0 = 0.3f;
        for (int k = 0; k < df::kMaxRegisters; ++k) r.c[k] = 0.1f * static_cast<float>(k + 1), r.f[k] = -r.c[k];
      }));
  add("sparse registers", with([&](Row& r) { step(r), r.c[2] = 0.5f, r.c[6] = -1.0f, r.f[4] = 0.25f, r.write = 6; }));
  add("learned variance", with([&](Row& r) { step(r), r.learned_s = 1, r.log_s_a = -1.0f, r.log_s_b = 0.7f; }));
  add("learned variance alone", with([](Row& r) { r.learned_s = 1, r.log_s_a = 0.5f, r.log_s_b = -2.0f; }));
  add("known region", with([&](Row& r) { step(r), r.s = 0.1f, r.known_y = 0.8f, r.known_z = 0.6f; }));
  add("known region without noise", with([&](Row& r) { step(r), r.known_y = 1.0f; }));
  add("known noise alone", with([&](Row& r) { step(r), r.known_z = 1.0f; }));
  add("dynamic threshold", reduced(with([&](Row& r) { clip(r), r.b = 0.4f, r.d = 0.8f; }), Reduce::kDynamicThreshold, 0.9f, 4.0f));
  add("guidance rescale",
      reduced(with([&](Row& r) { step(r), r.g[0] = 3.0f, r.g[1] = -2.0f; }), Reduce::kGuidanceRescale, 0.7f, 0.0f));
  add("langevin", reduced(with([](Row& r) { r.a = 1.0f; }), Reduce::kLangevin, 0.16f, -1.3f));
  add("guidance rescale by an output of no weight",
      reduced(with([&](Row& r) { step(r), r.g[0] = 0.0f, r.g[1] = 1.0f; }), Reduce::kGuidanceRescale, 0.7f, 0.0f));
  add("langevin with given noise",
      reduced(with([](Row& r) { r.a = 1.0f, r.c[1] = 0.2f, r.c[3] = 1.0f; }), Reduce::kLangevinGiven, 0.16f, -1.3f));
  return rows;
}

std::vector<uint8_t> copy_bytes(const void* memory, int64_t bytes) {
  const auto* first = static_cast<const uint8_t*>(memory);
  return {first, first + bytes};
}
}  // namespace

uint64_t Random::bits() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

Exact::Exact(int64_t bytes) : data_(std::malloc(static_cast<size_t>(bytes))) {
  if (data_ == nullptr) std::abort();
}

Exact::~Exact() { std::free(data_); }

Row empty_row() {
  Row row{};
  row.g[0] = 1.0f;
  row.r = 1.0f;
  row.lo = -kInfinity;
  row.hi = kInfinity;
  row.write = -1;
  row.calls_network = 1;
  return row;
}

const std::vector<std::pair<std::string, Row>>& named_rows() {
  static const auto rows = make_named_rows();
  return rows;
}

Row random_row(Random& random) {
  Row row = empty_row();
  const auto maybe = [&](float& coefficient) {
    if (random.coin()) coefficient = random.uniform();
  };
  row.calls_network = random.below(8) != 0;
  maybe(row.a), maybe(row.p), maybe(row.d), maybe(row.s), maybe(row.known_y), maybe(row.known_z);
  if (row.calls_network) {
    for (float& g : row.g) maybe(g);
    maybe(row.q), maybe(row.b);
    row.learned_s = random.below(4) == 0;
    if (row.learned_s) row.log_s_a = random.uniform(), row.log_s_b = random.uniform();
  }
  if (random.coin()) row.lo = -1.0f, row.hi = 1.0f;
  if (random.coin()) row.r = 0.5f + random.uniform() * 0.1f;
  for (float& c : row.c)
    if (random.below(4) == 0) c = random.uniform();
  if (random.coin()) {
    row.write = random.below(df::kMaxRegisters);
    maybe(row.e_x), maybe(row.e_0);
    if (row.calls_network) maybe(row.e_m);
    for (float& f : row.f)
      if (random.below(4) == 0) f = random.uniform();
  }
  return row;
}

bool Outcome::operator==(const Outcome& other) const {
  return state == other.state && bad == other.bad && registers.size() == other.registers.size() &&
         (registers.empty() || std::memcmp(registers.data(), other.registers.data(), registers.size() * sizeof(float)) == 0);
}

Outcome apply(const Run& run, const Case& what) {
  const df::PreparedRow row = df::prepare_row(what.row);
  const uint32_t t = row.terms;
  const int64_t values = what.samples * what.elements;
  const int64_t stride = what.elements * (what.row.learned_s ? 2 : 1);
  int registers = row.row.write + 1;
  for (int i = 0; i < row.history_count; ++i) registers = std::max(registers, row.history[i] + 1);
  for (int i = 0; i < row.keep_count; ++i) registers = std::max(registers, row.keep[i] + 1);

  // The data of a tensor do not depend on which other tensors are present.
  const auto tensor = [&](bool needed, DType type, int64_t count, uint64_t number) {
    Exact memory(needed ? count * bytes_of(type) : 1);
    Random random(what.seed * 1000 + number);
    if (needed) fill(random, memory.as<void>(), type, count);
    return memory;
  };
  const bool reads_state = (t & (df::kA | df::kP | df::kEx)) != 0;
  Exact x = tensor(reads_state || what.in_place, what.state, values, 0);
  Exact m0 = tensor(df::reads_output(row, 0) || what.row.learned_s, what.output, what.samples * stride, 1);
  Exact m1 = tensor((t & df::kG1) != 0, what.output, what.samples * stride, 2);
  Exact m2 = tensor((t & df::kG2) != 0, what.output, what.samples * stride, 3);
  Exact h = tensor(registers > 0, DType::kFloat32, registers * values, 4);
  Exact y = tensor(what.masked && (t & df::kKnownY), DType::kFloat32, values, 5);
  Exact mask = tensor(what.masked, DType::kFloat32, values, 6);
  if (what.masked)
    for (int64_t i = 0; i < values; ++i) mask.as<float>()[i] = static_cast<float>(i % 5) * 0.25f;
  Exact separate(what.in_place ? 1 : values * bytes_of(what.state));

  df::Buffers b;
  b.x = x.as<void>();
  b.out = what.in_place ? x.as<void>() : separate.as<void>();
  b.outputs[0] = m0.as<void>(), b.outputs[1] = m1.as<void>(), b.outputs[2] = m2.as<void>();
  b.output_stride = stride;
  b.variance_offset = what.row.learned_s ? what.elements : -1;
  b.registers = registers > 0 ? h.as<float>() : nullptr;
  b.register_count = registers;
  b.y = what.masked ? y.as<float>() : nullptr;
  b.mask = what.masked ? mask.as<float>() : nullptr;
  std::vector<uint64_t> seeds;
  std::vector<uint32_t> indices;
  for (int64_t i = 0; i < what.samples; ++i) {
    seeds.push_back(0x8000000000000007u + static_cast<uint64_t>(i % 2));
    indices.push_back(static_cast<uint32_t>(4 * i));
  }
  Outcome outcome;
  outcome.bad = run(what, b, seeds.data(), indices.data());
  outcome.state = copy_bytes(b.out, values * bytes_of(what.state));
  outcome.registers.assign(h.as<float>(), h.as<float>() + registers * values);
  return outcome;
}

Outcome apply(const df::Kernel& kernel, const Case& what) {
  return apply(
      [&](const Case& c, const df::Buffers& b, const uint64_t* seeds, const uint32_t* indices) {
        return df::Stepper(kernel, &c.row, 1, c.samples, c.elements, c.element_offset, c.state, c.output, b, seeds, indices)
            .run(0, kNoiseRow);
      },
      what);
}

std::vector<const df::Kernel*> runnable_kernels() {
  int count = 0;
  const df::Kernel* const* table = df::kernels(count);
  std::vector<const df::Kernel*> runnable;
  for (int i = 0; i < count; ++i)
    if (table[i]->unavailable() == nullptr) runnable.push_back(table[i]);
  return runnable;
}

const df::Kernel& scalar_kernel() { return *df::find_kernel("scalar"); }

void for_rows_in_every_dtype(const std::function<void(const Case&, const std::string&)>& check) {
  for (const auto& [name, row] : named_rows())
    for (const DType state : kTypes)
      for (const DType output : kTypes)
        for (const int64_t elements : {1, 13, 64, 147, 148})
          for (const bool in_place : {false, true})
            for (const bool masked : {false, true}) {
              Case what{row};
              what.elements = elements;
              what.element_offset = static_cast<uint64_t>(elements % 4);
              what.state = state;
              what.output = output;
              what.in_place = in_place;
              what.masked = masked;
              check(what, name);
            }
}

Case random_case(Random& random, uint64_t seed) {
  Case what{random_row(random)};
  what.samples = 1 + random.below(4);
  what.elements = 1 + random.below(100);
  what.element_offset = static_cast<uint64_t>(random.below(9));
  what.state = kTypes[random.below(3)];
  what.output = kTypes[random.below(3)];
  what.in_place = random.coin();
  what.masked = random.coin();
  what.seed = seed;
  return what;
}

int64_t bytes_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

std::string describe(const char* kernel, const Case& what) {
  const auto type = [](DType t) { return std::string(t == DType::kFloat32 ? "f32" : t == DType::kFloat16 ? "f16" : "bf16"); };
  return std::string(" [") + kernel + ", " + std::to_string(what.samples) + " samples of " + std::to_string(what.elements) +
         " from " + std::to_string(what.element_offset) + ", state " + type(what.state) + ", output " + type(what.output) +
         (what.in_place ? ", in place" : "") + (what.masked ? ", masked" : "") + "]";
}

std::string describe(const df::Kernel& kernel, const Case& what) { return describe(kernel.name, what); }

void fill(Random& random, void* memory, DType type, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = random.uniform();
    if (type == DType::kFloat32) {
      static_cast<float*>(memory)[i] = value;
    } else if (type == DType::kBFloat16) {
      static_cast<uint16_t*>(memory)[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    } else {  // a float16 pattern below 2: any sign, any mantissa, exponents from denormal to 1
      static_cast<uint16_t*>(memory)[i] = static_cast<uint16_t>(random.bits() >> 48) & 0xbfffu;
    }
  }
}
