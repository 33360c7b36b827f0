// CRC-32 as zlib, PNG and Ethernet have it: reflected, polynomial 0x04c11db7.
#pragma once

#include <cstddef>
#include <cstdint>

namespace df::compiled {

// The checksum of bytes that follow others, whose checksum is `before`.
uint32_t crc32(const unsigned char* bytes, size_t count, uint32_t before = 0);

}  // namespace df::compiled
