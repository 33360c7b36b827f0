// Philox against published words and the paper's algorithm; normals against the Box-Muller transform in float64.
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

#include "check.h"
#include "fixtures.h"
#include "random/normal.h"

namespace {

using Words = std::array<uint32_t, 4>;

// Salmon et al. 2011, section 3.3, as written.
Words plain_philox(Words c, uint64_t seed) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1,
         static_cast<uint32_t>(a)};
  }
  return c;
}

// The definition in normal.h, in float64.
void plain_normals(uint32_t u, uint32_t w, double& z0, double& z1) {
  const double unit = static_cast<float>(static_cast<double>(u >> 1) * 0x1p-31 + 0x1p-32);
  const double radius = std::sqrt(-2.0 * std::log(unit));
  const double phi = std::numbers::pi / 4.0 * (static_cast<double>(static_cast<int32_t>(w << 2)) * 0x1p-31);
  const double c = w >> 31 ? -std::cos(phi) : std::cos(phi), s = std::sin(phi);
  const bool exchanged = w >> 30 & 1;
  z0 = radius * (exchanged ? s : c);
  z1 = radius * (exchanged ? c : s);
}

}  // namespace

// Known answers published with Random123 (kat_vectors).
TEST(noise_philox_known_answers) {
  struct Known {
    Words counter;
    uint64_t seed;
    Words words;
  };
  const Known known[] = {
      {{0, 0, 0, 0}, 0, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
      {{~0u, ~0u, ~0u, ~0u}, ~uint64_t{0}, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
      {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, 0x299F31D0A4093822u, {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
  };
  for (const Known& k : known) {
    CHECK(plain_philox(k.counter, k.seed) == k.words);
    for (const df::Kernel* kernel : runnable_kernels()) {
      Words out;
      kernel->philox(k.seed, k.counter[0], k.counter[1], k.counter[2], k.counter[3], 1, out.data());
      CHECK_WITH(out == k.words, std::string(" ") + kernel->name);
    }
  }
}

TEST(noise_philox_counters) {
  Random random(1);
  for (const df::Kernel* kernel : runnable_kernels())
    for (int64_t counters = 1; counters < 40; ++counters) {
      const uint64_t seed = random.bits(), first = static_cast<uint32_t>(random.bits()) - uint64_t{counters % 2 ? 20u : 0u};
      Exact out(counters * 16);
      kernel->philox(seed, first, 7, 8, 2, counters, out.as<uint32_t>());
      for (int64_t i = 0; i < counters; ++i) {
        const Words words = plain_philox({static_cast<uint32_t>(first + static_cast<uint64_t>(i)), 7, 8, 2}, seed);
        CHECK_WITH(std::memcmp(out.as<uint32_t>() + 4 * i, words.data(), 16) == 0, std::string(" ") + kernel->name);
      }
    }
}

TEST(noise_normals) {
  const uint64_t seeds[2] = {11, 0xffffffff00000001u};
  const uint32_t indices[2] = {0, 5};
  for (const int64_t elements : {1, 2, 3, 5, 8, 31, 64, 77, 40'000})
    for (const uint64_t offset : {0, 1, 2, 3, 10}) {
      Exact expected(2 * elements * 4);
      df::run_normals(scalar_kernel(), expected.as<float>(), 2, elements, offset, seeds, indices, 3, 1, 0.5f);
      for (int64_t i = 0; i < 2 * elements; ++i) {
        const uint64_t element = offset + static_cast<uint64_t>(i % elements);
        const Words w = plain_philox({static_cast<uint32_t>(element / 4), 3, indices[i / elements], 1}, seeds[i / elements]);
        double z[4];
        plain_normals(w[0], w[1], z[0], z[1]);
        plain_normals(w[2], w[3], z[2], z[3]);
        CHECK(std::fabs(expected.as<float>()[i] - 0.5 * z[element % 4]) < 5e-6);
      }
      for (const df::Kernel* kernel : runnable_kernels()) {
        Exact out(2 * elements * 4);
        df::run_normals(*kernel, out.as<float>(), 2, elements, offset, seeds, indices, 3, 1, 0.5f);
        CHECK_WITH(std::memcmp(out.as<float>(), expected.as<float>(), static_cast<size_t>(2 * elements * 4)) == 0,
                   std::string(" ") + kernel->name);
      }
    }
}
