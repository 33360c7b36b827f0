// Programs for tests of the network.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "network/network.h"
#include "network/program.h"

using Words = std::vector<int64_t>;

// Every kind of operation, on an image of 4 x 4 pixels with 4 channels, channels last, and a concatenation. It takes a sample of 64
// numbers, a time and a label from 0 to 2.
Words every_kind();

// Constants for it, or for a program made from it.
std::vector<std::vector<float>> constants_for(const df::network::Program& program);

// Whether a program is small enough to be run by a test.
bool is_small(const df::network::Program& program);

// The network of every_kind().
std::unique_ptr<df::network::Network> network_of_every_kind(const char* kernel, int64_t budget = int64_t{64} << 20);
