// Draws four samples of each digit from a compiled model, as a grey picture in the format PGM.
//
//   digits MODEL.dfp OUT.pgm [SEED]

#include <diffuse_fast.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kColumns = 10, kRows = 4, kScale = 6;  // a column for each digit; a pixel becomes 6 x 6

void check(df_status status) {
  if (status != DF_OK) throw std::runtime_error(df_last_error());
}

struct Close {
  void operator()(df_model* model) const { df_close(model); }
};
using Model = std::unique_ptr<df_model, Close>;

Model open(const char* path) {
  df_model* model = nullptr;
  check(df_open(path, &model));
  return Model(model);
}

// The side of the samples, which must be square grey pictures.
int side_of(const df_info& info) {
  if (info.rank != 3 || info.shape[0] != 1 || info.shape[1] != info.shape[2] || !info.has_value_range)
    throw std::runtime_error(std::string(info.name) + " does not draw square grey pictures");
  return static_cast<int>(info.shape[1]);
}

// Samples of the labels 0 to 9 in turn.
std::vector<float> draw(df_model& model, int count, uint64_t seed) {
  std::vector<int64_t> labels(static_cast<size_t>(count));
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<int64_t>(i % kColumns);
  const df_value label{"label", labels.data(), labels.size() * sizeof(int64_t)};
  df_request request{};
  request.size = sizeof request;
  request.count = count;
  request.seed = seed;
  request.values = &label;
  request.value_count = 1;
  std::vector<float> samples(static_cast<size_t>(count * df_describe(&model)->elements));
  check(df_sample(&model, &request, samples.data()));
  return samples;
}

// The level of a value, as df.to_uint8 has it.
unsigned char level(float value, const df_info& info) {
  const auto low = static_cast<float>(info.value_low), scale = static_cast<float>(255.0 / (info.value_high - info.value_low));
  return static_cast<unsigned char>(std::clamp((value - low) * scale + 0.5f, 0.0f, 255.0f));
}

void write_pgm(const char* path, const std::vector<float>& samples, const df_info& info) {
  const int side = side_of(info), width = kColumns * side * kScale, height = kRows * side * kScale;
  std::ofstream out(path, std::ios::binary);
  out << "P5\n" << width << ' ' << height << "\n255\n";
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const int row = y / kScale, column = x / kScale, sample = row / side * kColumns + column / side;
      const auto at = static_cast<size_t>((sample * side + row % side) * side + column % side);
      out.put(static_cast<char>(level(samples[at], info)));
    }
  if (!out.flush()) throw std::runtime_error(std::string("cannot write ") + path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::cerr << "usage: digits MODEL.dfp OUT.pgm [SEED]\n";
    return 2;
  }
  try {
    const Model model = open(argv[1]);
    const df_info& info = *df_describe(model.get());
    side_of(info);
    const uint64_t seed = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 0;
    write_pgm(argv[2], draw(*model, kColumns * kRows, seed), info);
    std::cout << argv[2] << ": " << kColumns * kRows << " of " << info.name << " in " << info.steps << " steps, "
              << df_instruction_set() << ", diffuse_fast " << df_version() << '\n';
  } catch (const std::exception& error) {
    std::cerr << "digits: " << error.what() << '\n';
    return 1;
  }
}
