// Rows, data and runs shared by several tests.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "step/cpu/kernels.h"
#include "step/cpu/stepper.h"

// Reproducible data without libm: the same on every machine.  (splitmix64, Steele et al. 2014)
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  // Evenly in [-2, 2), exact in float32.
  float uniform() { return static_cast<float>(static_cast<int64_t>(bits() >> 40) - (int64_t{1} << 23)) * 0x1p-22f; }
  bool coin() { return (bits() >> 63) != 0; }
  int below(int n) { return static_cast<int>(bits() >> 33) % n; }

 private:
  uint64_t state_;
};

// Memory of exactly this many bytes, so that a sanitizer sees an access one byte outside.
class Exact {
 public:
  explicit Exact(int64_t bytes);
  Exact(Exact&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Exact& operator=(Exact&&) = delete;
  ~Exact();
  template <class T>
  T* as() {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

// A row without terms: one network output of weight 1, no clamp, no register written.
df::Row empty_row();

// Every kind of row, by name.
const std::vector<std::pair<std::string, df::Row>>& named_rows();

// A row with random terms, within the contract.
df::Row random_row(Random& random);

// One row on fresh data.
struct Case {
  df::Row row;
  int64_t samples = 3, elements = 37;
  uint64_t element_offset = 0;
  df::DType state = df::DType::kFloat32, output = df::DType::kFloat32;
  bool in_place = false, masked = true;
  uint64_t seed = 1;
};

inline constexpr df::DType kTypes[] = {df::DType::kFloat32, df::DType::kFloat16, df::DType::kBFloat16};

// Every kind of row in every pair of dtypes, in place or not, masked or not, with its name.
void for_rows_in_every_dtype(const std::function<void(const Case&, const std::string&)>& check);

// A random row on a random number of samples and elements, from a random offset.
Case random_case(Random& random, uint64_t seed);

// The result of a case: the bytes of the new state, and the registers.
struct Outcome {
  std::vector<uint8_t> state;
  std::vector<float> registers;
  int64_t bad = -1;
  bool operator==(const Outcome& other) const;
};

// Applies the row to buffers, with the noise of row kNoiseRow. Returns the first bad sample, or -1.
using Run = std::function<int64_t(const Case&, const df::Buffers&, const uint64_t* seeds, const uint32_t* indices)>;
inline constexpr uint32_t kNoiseRow = 11;

// Applies the row to fresh data, through a Stepper or through `run`. A tensor that the row does not need has one byte, so
// that reading it is an overrun.
Outcome apply(const Run& run, const Case& what);
Outcome apply(const df::Kernel& kernel, const Case& what);

// The kernels that this machine can run, the scalar one last.
std::vector<const df::Kernel*> runnable_kernels();
const df::Kernel& scalar_kernel();

int64_t bytes_of(df::DType type);
std::string describe(const char* kernel, const Case& what);
std::string describe(const df::Kernel& kernel, const Case& what);

// Fills memory of the type with values in [-2, 2).
void fill(Random& random, void* memory, df::DType type, int64_t count);
