// Memory for weights and activations: aligned, and where it is large in huge pages, which save a tenth of a large network's time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace df::network {

// Memory aligned to a cache line; the content is undefined at first. From two MiB on it asks for huge pages.
class Floats {
 public:
  Floats() = default;
  explicit Floats(int64_t count);
  float* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float[], Free> data_;
  int64_t size_ = 0;
};

// Memory for many pieces, each aligned to a cache line, that are freed together. Small pieces share huge pages if they are many.
class Arena {
 public:
  // `expected`: floats of all pieces, about.
  explicit Arena(int64_t expected);
  float* take(int64_t count);

 private:
  struct Block {
    Floats memory;
    int64_t used;
  };
  int64_t block_;  // floats of a block, at least
  std::vector<Block> blocks_;
};

}  // namespace df::network
