// A compiled model as bytes, by docs/compiled.md: written here a second time, so that the reader is tested against the page.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "programs.h"
#include "step/step.h"

using Bytes = std::vector<unsigned char>;

struct FileInput {
  std::string name;
  uint32_t type = 0;
  std::vector<int64_t> shape;
  bool has_null = true;
  double null = 0;
  int64_t classes = -1;
};

// The file of the network of every_kind(), a label from 0 to 2, and a plan of two rows, unless members are changed.
struct CompiledFile {
  CompiledFile();

  uint32_t byte_order = 0x01020304, version = 1, noise_version = 1, precision = 0, registers = 1, outputs = 2, steps = 2;
  float initial_scale = 1;
  double guidance_scale = 2;
  bool has_value_range = true;
  double low = -1, high = 1;
  std::string name = "every kind", about = "{}";
  std::vector<int64_t> shape = {4, 16};
  std::vector<FileInput> inputs = {{"label", 1, {}, true, 2, 3}};
  Words words, exact;
  std::vector<df::Row> rows;
  std::vector<float> times;
  std::vector<std::vector<float>> constants;

  Bytes bytes() const;
};

// Writes the right size and checksum into the header of bytes that were changed.
void seal(Bytes& bytes);
