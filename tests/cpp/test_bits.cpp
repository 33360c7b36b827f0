// Checksums of every kernel's results against a recorded table: the bits are equal on other compilers and architectures.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <utility>

#include "bits.h"
#include "check.h"
#include "fixtures.h"

namespace {

using Table = std::vector<std::pair<std::string, uint64_t>>;

const Table kExpected = {
#include "expected_bits.inc"
};

// FNV-1a.
uint64_t checksum(const void* memory, size_t bytes, uint64_t hash = 0xCBF29CE484222325u) {
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const uint8_t*>(memory)[i]) * 0x100000001B3u;
  return hash;
}

Table bits_of(const df::Kernel& kernel) {
  Table table;
  for (const auto& [name, row] : named_rows())
    for (const auto& [type, suffix] : {std::pair{df::DType::kFloat32, ", float32"}, std::pair{df::DType::kFloat16, ", float16"},
                                       std::pair{df::DType::kBFloat16, ", bfloat16"}}) {
      Case what{row};
      what.elements = 333;
      what.element_offset = 3;
      what.state = what.output = type;
      const Outcome outcome = apply(kernel, what);
      uint64_t hash = checksum(outcome.state.data(), outcome.state.size());
      hash = checksum(outcome.registers.data(), outcome.registers.size() * sizeof(float), hash);
      table.emplace_back(name + suffix, hash);
    }
  const uint64_t seed = 1234;
  const uint32_t index = 5;
  std::vector<float> normals(200'000);
  df::run_normals(kernel, normals.data(), 1, 200'000, 0, &seed, &index, 0, 0, 1.0f);
  table.emplace_back("normals", checksum(normals.data(), normals.size() * sizeof(float)));

  Case learned{empty_row()};  // exp over its range
  learned.row.learned_s = 1;
  learned.row.log_s_b = 45.0f;
  learned.elements = 20'000;
  learned.masked = false;
  const Outcome outcome = apply(kernel, learned);
  table.emplace_back("exp", checksum(outcome.state.data(), outcome.state.size()));
  return table;
}

}  // namespace

void print_bits() {
  for (const auto& [name, hash] : bits_of(scalar_kernel())) std::printf("{\"%s\", 0x%016" PRIx64 "u},\n", name.c_str(), hash);
}

TEST(bits_are_those_of_the_table) {
  for (const df::Kernel* kernel : runnable_kernels()) {
    const Table table = bits_of(*kernel);
    CHECK(table.size() == kExpected.size());
    for (size_t i = 0; i < std::min(table.size(), kExpected.size()); ++i)
      CHECK_WITH(table[i] == kExpected[i], " " + table[i].first + " [" + kernel->name + "]");
  }
}
