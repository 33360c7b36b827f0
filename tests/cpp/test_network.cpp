// The program's validator and a small network with every kind of operation: valid words run, mutated words give typed errors only.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "network/network.h"
#include "programs.h"

namespace {

using df::network::decode;
using df::network::Network;
using df::network::Program;

std::vector<float> run(const Words& words, const df::network::Kernels& kernels, float scale = 1.0f) {
  const Program program = decode(words);
  const auto constants = constants_for(program);
  const std::vector<std::span<const float>> spans(constants.begin(), constants.end());
  Network network(words, df::network::in_memory(spans), kernels);
  std::vector<float> x(3 * static_cast<size_t>(network.input_size(0))), y(3 * static_cast<size_t>(network.output_size()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = scale * std::sin(static_cast<float>(i));
  std::vector<std::vector<float>> inputs;
  for (size_t k = 1; k < network.inputs(); ++k) inputs.emplace_back(3 * static_cast<size_t>(network.input_size(k)), 1.0f);
  std::vector<const float*> conditions;
  for (size_t k = 1; k < inputs.size(); ++k) conditions.push_back(inputs[k].data());
  const auto times = network.prepare_times(inputs[0].data(), 3), rows = network.prepare_conditions(conditions.data(), 3);
  network.run(x.data(), nullptr, y.data(), times.data(), rows.data(), 3, 2);
  return y;
}

// a * factor + more, which may wrap.
int64_t changed(int64_t a, int64_t factor, int64_t more) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(factor) + static_cast<uint64_t>(more));
}

}  // namespace

TEST(network_every_kind_has_the_same_bits) {
  const Words words = every_kind();
  const std::vector<float> expected = run(words, *df::network::find_kernels("scalar_plain"));
  CHECK(std::all_of(expected.begin(), expected.end(), [](float y) { return std::isfinite(y); }));
  for (const df::Kernel* kernel : runnable_kernels())
    CHECK_WITH(run(words, *df::network::find_kernels(kernel->name)) == expected, std::string(" ") + kernel->name);
}

TEST(network_typed_errors) {
  Words words = every_kind();
  CHECK_THROWS(decode(Words{}), std::invalid_argument, "too early");
  words[1] = 99;
  CHECK_THROWS(decode(words), std::invalid_argument, "version is 99");
  words = every_kind();
  words.push_back(0);
  CHECK_THROWS(decode(words), std::invalid_argument, "follow its end");
}

// One, two or three changes to the words. Under AddressSanitizer this also shows that what is accepted runs inside its memory.
TEST(network_mutated_words) {
  const Words valid = every_kind();
  std::mt19937_64 random(1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  int accepted = 0, refused = 0, ran = 0;
  for (int round = 0; round < 10'000; ++round) {
    Words words = valid;
    for (size_t n = 1 + below(3); n > 0; --n) {
      const size_t at = below(words.size());
      const int64_t wild[] = {0,
                              1,
                              2,
                              -1,
                              INT64_MAX,
                              INT64_MIN,
                              int64_t{1} << 31,
                              int64_t{1} << 40,
                              1 << 20,
                              changed(words[at], 1, 1),
                              changed(words[at], 1, -1),
                              changed(words[at], 2, 0),
                              words[below(words.size())]};
      switch (below(8)) {
        case 0: words.erase(words.begin() + static_cast<std::ptrdiff_t>(at)); break;
        case 1: words.insert(words.begin() + static_cast<std::ptrdiff_t>(at), wild[below(std::size(wild))]); break;
        case 2: words.resize(std::max<size_t>(at, 1)); break;
        default: words[at] = wild[below(std::size(wild))];
      }
    }
    try {
      const Program program = decode(words);
      ++accepted;
      if (!is_small(program)) continue;
      run(words, *df::network::find_kernels("scalar_plain"));
      run(words, *df::network::find_kernels(runnable_kernels().front()->name));
      ++ran;
    } catch (const std::invalid_argument&) {
      ++refused;
    } catch (const std::runtime_error&) {
      ++refused;  // an index of a Gather
    }
  }
  CHECK(refused > 5'000 && accepted > 100 && ran > 50);
}
