// stored_networks FOLDER: runs networks from files on every instruction set of this machine, and compares their results with the
// stored ones, to the bit. tests/network/stored.py writes the files on another machine.
//
// A file holds 64-bit integers and float32, little endian; a list is preceded by its length:
//
//   precision batch [word...] count_of_constants [float...]... [float...](one list per input) [float...](result)
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fixtures.h"
#include "network/network.h"
#include "step/cpu/kernels.h"

namespace {

using df::network::Network;

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : in_(path, std::ios::binary) {
    in_.exceptions(std::ios::failbit | std::ios::badbit);
  }
  int64_t number() {
    int64_t n;
    in_.read(reinterpret_cast<char*>(&n), sizeof n);
    return n;
  }
  template <class T>
  std::vector<T> list() {
    std::vector<T> items(static_cast<size_t>(number()));
    in_.read(reinterpret_cast<char*>(items.data()), static_cast<std::streamsize>(items.size() * sizeof(T)));
    return items;
  }

 private:
  std::ifstream in_;
};

struct Stored {
  df::network::Precision precision;
  int64_t batch;
  std::vector<int64_t> words;
  std::vector<std::vector<float>> constants, inputs;
  std::vector<float> result;

  explicit Stored(const std::filesystem::path& path) {
    Reader file(path);
    precision = static_cast<df::network::Precision>(file.number());
    batch = file.number();
    words = file.list<int64_t>();
    constants.resize(static_cast<size_t>(file.number()));
    for (auto& values : constants) values = file.list<float>();
    inputs.resize(df::network::decode(words).inputs.size());
    for (auto& values : inputs) values = file.list<float>();
    result = file.list<float>();
  }
};

std::vector<float> run(const Stored& stored, const df::network::Kernels& kernels, int threads) {
  const std::vector<std::span<const float>> constants(stored.constants.begin(), stored.constants.end());
  Network network(stored.words, df::network::in_memory(constants), kernels, stored.precision);
  std::vector<const float*> conditions;
  for (size_t i = 2; i < stored.inputs.size(); ++i) conditions.push_back(stored.inputs[i].data());
  for (size_t i = 0; i < stored.inputs.size(); ++i)
    if (static_cast<int64_t>(stored.inputs[i].size()) != stored.batch * network.input_size(i))
      throw std::invalid_argument("input " + std::to_string(i) + " has another size");
  const auto times = network.prepare_times(stored.inputs[1].data(), stored.batch);
  const auto rows = network.prepare_conditions(conditions.data(), stored.batch);
  std::vector<float> y(static_cast<size_t>(stored.batch * network.output_size()));
  network.run(stored.inputs[0].data(), nullptr, y.data(), times.data(), rows.data(), stored.batch, threads);
  return y;
}

// Any NaN will do for a NaN: its sign and payload differ between architectures.
void compare(const std::string& what, const std::vector<float>& got, const std::vector<float>& expected, int& failures) {
  if (got.size() != expected.size()) throw std::invalid_argument("the result has another size");
  size_t different = 0;
  float largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    different += std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i]);
    largest = std::max(largest, std::abs(got[i] - expected[i]));
  }
  if (different == 0) return;
  ++failures;
  std::printf("FAILED %s: %zu of %zu elements differ, by at most %g\n", what.c_str(), different, got.size(),
              static_cast<double>(largest));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: stored_networks FOLDER\n");
    return 2;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> names{"scalar_plain"};
  for (const df::Kernel* kernel : runnable_kernels()) names.emplace_back(kernel->name);
  int failures = 0;
  for (const auto& path : paths) {
    try {
      const Stored stored(path);
      for (const std::string& name : names)
        for (const int threads : {1, 2})
          compare(path.filename().string() + " on " + name, run(stored, *df::network::find_kernels(name.c_str()), threads),
                  stored.result, failures);
    } catch (const std::exception& error) {
      ++failures;
      std::printf("FAILED %s: %s\n", path.filename().c_str(), error.what());
    }
  }
  std::printf("%zu networks on", paths.size());
  for (const std::string& name : names) std::printf(" %s", name.c_str());
  std::printf(": %d failed\n", failures);
  return failures == 0 && !paths.empty() ? 0 : 1;
}
