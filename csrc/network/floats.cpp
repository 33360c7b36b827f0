#include "network/floats.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "platform/pages.h"

namespace df::network {

Floats::Floats(int64_t count) : size_(count) {
  const size_t wanted = static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(float);
  const size_t alignment = wanted < kHugePage ? 64 : kHugePage;
  const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
  if (data_ == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) prefer_huge_pages(data_.get(), bytes);
}
void Floats::Free::operator()(float* p) const { std::free(p); }

namespace {
constexpr int64_t kPageFloats = static_cast<int64_t>(kHugePage / sizeof(float));
}

Arena::Arena(int64_t expected) : block_(expected < kPageFloats ? 0 : kPageFloats) {}

float* Arena::take(int64_t count) {
  const int64_t size = (count + 15) / 16 * 16;
  auto block = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) { return b.memory.size() - b.used >= size; });
  if (block == blocks_.end()) {
    const int64_t pages = block_ == 0 ? size : (size + block_ - 1) / block_ * block_;
    block = blocks_.insert(block, {Floats(pages), 0});
  }
  float* at = block->memory.data() + block->used;
  block->used += size;
  return at;
}

}  // namespace df::network
