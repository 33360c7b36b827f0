// The constants of a program while a network is loaded: each is in memory only as long as operations that are loaded need it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "network/operation.h"
#include "network/operations/prepared.h"

namespace df::network {

// A constant that the caller gives, row-major; valid while `owner` lives.
struct GivenConstant {
  std::span<const float> values;
  std::shared_ptr<const void> owner;
};

// Gives the constants of a program by number, in the order of their buffers. Each is asked for at most once, when an operation that
// reads it is loaded. What `get` throws ends the loading.
struct ConstantSource {
  size_t count = 0;
  std::function<GivenConstant(size_t number)> get;
};

// Constants that stay in memory while the network is loaded.
ConstantSource in_memory(std::span<const std::span<const float>> constants);

// Constants that running operations read as they are, by buffer; the others are packed.
std::vector<bool> read_while_running(const Program& program);

// Puts constants, given and computed ones, at their places for one operation after the other.
class LoadedConstants {
 public:
  // Throws std::invalid_argument if the program has another number of constants.
  LoadedConstants(const Program& program, const ConstantSource& source, std::vector<Place>& places);

  // Call both for every operation, in order: before it is loaded, and when it needs its constants no more.
  // begin() throws std::invalid_argument for a constant of a wrong size.
  void begin(const Operation& operation);
  void end(const Operation& operation);

  // Where the operation's output is, if that is a constant.
  float* output(const Operation& operation) { return constants_[static_cast<size_t>(operation.output.buffer)].values.data(); }

  // At the end: the memory of those that running operations read.
  std::vector<Floats> take();

 private:
  struct Constant {
    int64_t uses = 0;  // operations that will read or write it
    bool kept = false;
    size_t number = 0;  // of a given one
    Floats values;
    GivenConstant given;
  };

  template <class Fn>
  void each(const Operation& operation, Fn&& fn);
  void load(size_t buffer);

  const Program& program_;
  const ConstantSource& source_;
  std::vector<Place>& places_;
  std::vector<Constant> constants_;  // by buffer
};

}  // namespace df::network
