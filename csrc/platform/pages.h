// Huge pages, where the system has them.
#pragma once

#include <cstddef>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace df {

constexpr size_t kHugePage = size_t{2} << 20;

// Asks for huge pages in whole ones of `bytes` bytes at an address that is a multiple of kHugePage. The system may decline.
inline void prefer_huge_pages([[maybe_unused]] void* address, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  madvise(address, bytes, MADV_HUGEPAGE);
#endif
}

}  // namespace df
