// Reads a compiled model: a program with its weights and the plan that it is sampled with, in one file (docs/compiled.md).
//
// The file may come from anybody. Every size, offset and count is checked before memory is allocated for it, and what later code
// relies on is checked here: the program by its validator (network/program.h), the rows of the plan, and both against each other.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "loop/slots.h"
#include "network/constants.h"
#include "network/operation.h"

namespace df::compiled {

// A file that is not a compiled model, is damaged, or is of another version.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The bytes of a file. `read` copies `bytes` of them, from `offset` on, which lie within `size`.
struct Source {
  uint64_t size = 0;
  std::function<void(uint64_t offset, void* to, size_t bytes)> read;
};

enum class Type : uint32_t { kFloat32, kInt64, kInt32, kBool };
size_t size_of(Type type);

// A conditioning input.
struct Input {
  std::string name;
  Type type = Type::kFloat32;
  std::vector<int64_t> shape;  // for one sample
  int64_t elements = 1;
  std::optional<double> null;  // of every element: no condition
  int64_t classes = -1;        // of a label, or -1
};

// What a user of the model must know.
struct Description {
  std::string name;
  std::string about;  // JSON
  std::vector<int64_t> shape;
  int64_t elements = 1;
  std::optional<std::pair<double, double>> value_range;
  std::vector<Input> inputs;
  int steps = 0;
  double guidance_scale = 1;
};

struct Contents {
  Description description;
  std::shared_ptr<const loop::Plan> plan;
  float initial_scale = 1;
  int outputs = 1;  // evaluations that a row may weigh: with the condition, and from 2 on with the null values
  std::vector<int64_t> words, exact;
  network::Precision precision = network::Precision::kFloat32;
  network::ConstantSource constants;  // reads from the source, which must live as long
};

// Throws FileError, and what the source throws.
Contents read(const Source& source);

}  // namespace df::compiled
