// Compiled models through the C ABI: samples, requests that are wrong, and files that are wrong or made to do harm.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "capi/diffuse_fast.h"
#include "check.h"
#include "compiled/crc32.h"
#include "compiled/model.h"
#include "compiled_file.h"
#include "fixtures.h"
#include "programs.h"
#include "random/normal.h"

namespace {

constexpr int64_t kElements = 64;

// A model that is closed at the end; null if the bytes are refused.
class Opened {
 public:
  explicit Opened(const Bytes& bytes) : status(df_open_memory(bytes.data(), bytes.size(), &model)) {}
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() { df_close(model); }

  df_model* model = nullptr;
  df_status status;
};

// A request with a label for each sample.
struct Asked {
  explicit Asked(int64_t count) : labels(static_cast<size_t>(count)) {
    std::iota(labels.begin(), labels.end(), int64_t{0});
    for (int64_t& label : labels) label %= 3;
    request.size = sizeof request;
    request.count = count;
    request.seed = 7;
    request.values = &value;
    request.value_count = 1;
    value = {"label", labels.data(), labels.size() * sizeof(int64_t)};
  }
  Asked(const Asked&) = delete;

  std::vector<int64_t> labels;
  df_value value{};
  df_request request{};
};

std::vector<float> draw(df_model* model, const df_request& request, df_status expected = DF_OK) {
  std::vector<float> x(static_cast<size_t>(std::clamp<int64_t>(request.count, 1, 8) * kElements), 99.0f);
  const df_status status = df_sample(model, &request, x.data());
  CHECK_WITH(status == expected, " " + std::to_string(status) + " " + df_last_error());
  if (status != DF_OK) CHECK(std::ranges::all_of(x, [](float v) { return v == 99.0f; }));
  return x;
}

bool said(const std::string& fragment) { return std::string(df_last_error()).find(fragment) != std::string::npos; }

}  // namespace

TEST(compiled_crc32) {
  const std::string digits = "123456789";  // the check value of the catalogue of CRCs
  const auto* bytes = reinterpret_cast<const unsigned char*>(digits.data());
  CHECK(df::compiled::crc32(bytes, 9) == 0xcbf43926u);
  for (size_t cut = 0; cut <= 9; ++cut)
    CHECK(df::compiled::crc32(bytes + cut, 9 - cut, df::compiled::crc32(bytes, cut)) == 0xcbf43926u);
}

TEST(compiled_description) {
  CompiledFile file;
  file.about = "\x7f \u00e9 \u20ac \ud7ff \U0001f600 \U0010ffff";
  const Opened opened(file.bytes());
  CHECK_WITH(opened.status == DF_OK, df_last_error());
  const df_info& info = *df_describe(opened.model);
  CHECK(std::string(info.name) == "every kind" && std::string(info.about) == file.about);
  CHECK(info.rank == 2 && info.shape[0] == 4 && info.shape[1] == 16 && info.elements == kElements && info.steps == 2);
  CHECK(info.has_value_range == 1 && info.value_low == -1 && info.value_high == 1 && info.guidance_scale == 2);
  CHECK(info.inputs == 1 && df_input_at(opened.model, 1) == nullptr && df_input_at(opened.model, -1) == nullptr);
  const df_input& label = *df_input_at(opened.model, 0);
  CHECK(std::string(label.name) == "label" && label.type == DF_INT64 && label.rank == 0 && label.elements == 1);
  CHECK(label.bytes == 8 && label.has_null == 1 && label.null_value == 2 && label.classes == 3);
  CHECK(df_instruction_set() != nullptr && std::string(df_version()).find('.') != std::string::npos);
}

// The two rows of the file by hand: m = 2·f(x, label) - f(x, 2), then x' = 0.75·x + m/16 + h/8 + z/4.
TEST(compiled_sample_by_hand) {
  const CompiledFile file;
  const Opened opened(file.bytes());
  Asked asked(1);
  asked.labels[0] = 1;
  const std::vector<float> got = draw(opened.model, asked.request);
  const auto network = network_of_every_kind(df_instruction_set());
  const df::Kernel& kernel = *df::find_kernel(df_instruction_set());
  std::vector<float> x(kElements), z(kElements), kept(kElements);
  kernel.normals({x.data(), kElements, 0, 7, 0, 0, df::kStreamInitial, file.initial_scale});
  const float labels[] = {1.0f, 2.0f};
  const float* label = labels;
  const auto conditions = network->prepare_conditions(&label, 2);
  for (uint32_t row = 0; row < 2; ++row) {
    std::vector<float> outputs[2] = {std::vector<float>(kElements), std::vector<float>(kElements)};
    const auto time = network->prepare_times(&file.times[row], 1);
    for (size_t j = 0; j < 2; ++j) CHECK(network->run(x.data(), nullptr, outputs[j].data(), time.data(), &conditions[j], 1, 1));
    kernel.normals({z.data(), kElements, 0, 7, 0, row, df::kStreamRow, 1.0f});
    for (size_t i = 0; i < kElements; ++i) {
      const float m = std::fma(-1.0f, outputs[1][i], 2.0f * outputs[0][i]);
      float next = std::fma(0.0625f, m, 0.75f * x[i]);
      if (row == 1) next = std::fma(0.125f, kept[i], next);
      kept[i] = m;
      x[i] = std::fma(0.25f, z[i], next);
    }
  }
  CHECK(got == x);
}

TEST(compiled_samples_do_not_depend_on_the_batch) {
  const Bytes bytes = CompiledFile().bytes();
  std::vector<float> expected;
  for (const df::Kernel* kernel : runnable_kernels()) {
    setenv("DIFFUSE_FAST_KERNEL", kernel->name, 1);
    const Opened opened(bytes);
    CHECK(std::string(df_instruction_set()) == kernel->name);
    Asked asked(7);
    asked.request.threads = 2;
    const std::vector<float> together = draw(opened.model, asked.request);
    if (expected.empty()) expected = together;
    CHECK_WITH(together == expected, kernel->name);
    for (uint32_t i = 0; i < 7; ++i) {
      Asked alone(1);
      alone.labels[0] = i % 3;
      alone.request.first_index = i;
      const std::vector<float> x = draw(opened.model, alone.request);
      CHECK(std::equal(x.begin(), x.end(), together.begin() + i * kElements));
    }
    // One label for all, and one seed for each sample.
    const uint64_t seeds[] = {7, 8, 7};
    Asked shared(3);
    shared.value.bytes = sizeof(int64_t);
    shared.request.seed = 0;
    shared.request.seeds = seeds;
    const std::vector<float> x = draw(opened.model, shared.request);
    CHECK(std::equal(x.begin(), x.begin() + kElements, together.begin()));
    CHECK(std::equal(x.begin(), x.begin() + kElements, x.begin() + 2 * kElements));
    CHECK(!std::equal(x.begin(), x.begin() + kElements, x.begin() + kElements));
  }
  setenv("DIFFUSE_FAST_KERNEL", "sse9", 1);
  CHECK(df_instruction_set() == nullptr && said("sse9"));
  CHECK(Opened(bytes).status == DF_UNAVAILABLE);
  unsetenv("DIFFUSE_FAST_KERNEL");
}

TEST(compiled_requests_that_are_wrong) {
  const Opened opened(CompiledFile().bytes());
  const auto refused = [&](const char* fragment, const std::function<void(Asked&)>& change) {
    Asked asked(3);
    change(asked);
    draw(opened.model, asked.request, DF_BAD_ARGUMENT);
    CHECK_WITH(said(fragment), std::string(" ") + df_last_error());
  };
  const uint64_t seeds[] = {1, 2, 3};
  refused("size of the request", [](Asked& a) { a.request.size = 8; });
  refused("count is below 1", [](Asked& a) { a.request.count = 0; });
  refused("count is below 1", [](Asked& a) { a.request.count = INT64_MIN; });
  refused("2**32", [](Asked& a) { a.request.count = INT64_MAX; });
  refused("2**32", [](Asked& a) { a.request.first_index = UINT32_MAX - 1; });
  refused("leave seed and first_index at 0", [&](Asked& a) { a.request.seeds = seeds; });
  refused("threads is negative", [](Asked& a) { a.request.threads = -1; });
  refused("values is NULL", [](Asked& a) { a.request.values = nullptr; });
  refused("name of a value is NULL", [](Asked& a) { a.value.name = nullptr; });
  refused("no conditioning input 'colour'", [](Asked& a) { a.value.name = "colour"; });
  refused("has 16 bytes; give 8 for all samples alike, or 24 for 3", [](Asked& a) { a.value.bytes = 16; });
  refused("has 0 bytes", [](Asked& a) { a.value.data = nullptr; });
  refused("label 3; labels are from 0 to 2", [](Asked& a) { a.labels[1] = 3; });
  refused("label -1", [](Asked& a) { a.labels[1] = -1; });
  refused("is given twice", [](Asked& a) {
    static df_value twice[2];
    twice[0] = twice[1] = a.value;
    a.request.values = twice;
    a.request.value_count = 2;
  });
  CHECK(df_sample(opened.model, nullptr, nullptr) == DF_BAD_ARGUMENT && df_sample(nullptr, nullptr, nullptr) == DF_BAD_ARGUMENT);
  CHECK(df_open(nullptr, nullptr) == DF_BAD_ARGUMENT && df_open_memory(nullptr, 0, nullptr) == DF_BAD_ARGUMENT);
  CHECK(df_describe(nullptr) == nullptr && df_input_at(nullptr, 0) == nullptr);
  df_close(nullptr);
  df_stop_free(nullptr);
  df_stop_request(nullptr);

  CompiledFile strict;
  strict.outputs = 1;
  for (df::Row& row : strict.rows) row.g[1] = 0;
  strict.inputs[0].has_null = false;
  const Opened needs_label(strict.bytes());
  CHECK_WITH(needs_label.status == DF_OK, df_last_error());
  Asked none(1);
  none.request.value_count = 0;
  draw(needs_label.model, none.request, DF_BAD_ARGUMENT);
  CHECK(said("'label' is missing"));
}

TEST(compiled_values_of_every_type) {
  df::compiled::Input input;
  input.shape = {3};
  input.elements = 3;
  const std::vector<float> expected = {0, 1, 1, 0, 1, 1};
  const auto converted = [&](df::compiled::Type type, const void* data, size_t bytes) {
    input.type = type;
    return floats_of(input, {"y", data, bytes}, 2);
  };
  const float floats[] = {0, 1, 1};
  const int64_t longs[] = {0, 1, 1};
  const int32_t ints[] = {0, 1, 1};
  const unsigned char bools[] = {0, 1, 255};
  CHECK(converted(df::compiled::Type::kFloat32, floats, sizeof floats) == expected);
  CHECK(converted(df::compiled::Type::kInt64, longs, sizeof longs) == expected);
  CHECK(converted(df::compiled::Type::kInt32, ints, sizeof ints) == expected);
  CHECK(converted(df::compiled::Type::kBool, bools, sizeof bools) == expected);
}

TEST(compiled_stop) {
  const Opened opened(CompiledFile().bytes());
  Asked asked(3);
  const std::vector<float> expected = draw(opened.model, asked.request);
  df_stop* stop = df_stop_new();
  asked.request.stop = stop;
  CHECK(draw(opened.model, asked.request) == expected);
  df_stop_request(stop);
  draw(opened.model, asked.request, DF_STOPPED);
  df_stop_free(stop);

  for (int round = 0; round < 20; ++round) {
    df_stop* other = df_stop_new();
    asked.request.stop = other;
    std::thread requests([&] { df_stop_request(other); });
    std::vector<float> x(expected.size());
    const df_status status = df_sample(opened.model, &asked.request, x.data());
    CHECK(status == DF_STOPPED || (status == DF_OK && x == expected));
    requests.join();
    df_stop_free(other);
  }
}

TEST(compiled_threads_share_a_model) {
  const Opened opened(CompiledFile().bytes());
  Asked asked(5);
  asked.request.threads = 2;
  const std::vector<float> expected = draw(opened.model, asked.request);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int n = 0; n < 4; ++n)
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        std::vector<float> x(expected.size());
        df_request bad{};
        if (df_sample(opened.model, &bad, x.data()) != DF_BAD_ARGUMENT || !said("size of the request")) continue;
        if (df_sample(opened.model, &asked.request, x.data()) == DF_OK && x == expected) ++right;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 40);
}

TEST(compiled_nan_names_the_sample_and_the_row) {
  CompiledFile file;
  file.constants[1][0] = std::numeric_limits<float>::quiet_NaN();
  const Opened opened(file.bytes());
  Asked asked(2);
  draw(opened.model, asked.request, DF_NOT_FINITE);
  CHECK(said("NaN or Inf at row 0 for sample 0"));
}

TEST(compiled_files_on_disk) {
  const Bytes bytes = CompiledFile().bytes();
  const std::string path = "compiled_test." + std::to_string(std::random_device()()) + ".dfp";
  const auto write = [&](size_t count) {
    FILE* file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr && std::fwrite(bytes.data(), 1, count, file) == count);
    std::fclose(file);
  };
  df_model* model = nullptr;
  CHECK(df_open(path.c_str(), &model) == DF_CANNOT_READ && said(path) && model == nullptr);
  CHECK(df_open(".", &model) == DF_CANNOT_READ && df_open("/dev/null", &model) == DF_CANNOT_READ);
  write(bytes.size());
  CHECK_WITH(df_open(path.c_str(), &model) == DF_OK, df_last_error());
  const Opened in_memory(bytes);
  Asked asked(3);
  CHECK(draw(model, asked.request) == draw(in_memory.model, asked.request));
  df_close(model);
  for (const size_t count : {size_t{0}, size_t{31}, size_t{200}, bytes.size() - 1}) {
    write(count);
    CHECK(df_open(path.c_str(), &model) == DF_BAD_FILE && model == nullptr);
  }
  std::remove(path.c_str());
}

TEST(compiled_headers_that_are_wrong) {
  const Bytes valid = CompiledFile().bytes();
  const auto refused = [&](const char* fragment, bool sealed, const std::function<void(Bytes&)>& change) {
    Bytes bytes = valid;
    change(bytes);
    if (sealed) seal(bytes);
    CHECK_WITH(Opened(bytes).status == DF_BAD_FILE && said(fragment), std::string(" ") + df_last_error());
  };
  const auto put = [](Bytes& bytes, size_t at, uint64_t value) { std::memcpy(bytes.data() + at, &value, sizeof value); };
  refused("not a compiled model", false, [](Bytes& b) { b.clear(); });
  refused("not a compiled model", false, [](Bytes& b) { b[0] = 'x'; });
  refused("not a compiled model", false, [](Bytes& b) { b.erase(b.begin() + 4); });  // "\r\n" became "\n"
  refused("other byte order", false, [](Bytes& b) { std::reverse(b.begin() + 8, b.begin() + 12); });
  refused("version 2", false, [](Bytes& b) { b[12] = 2; });
  refused("should have", false, [](Bytes& b) { b.pop_back(); });
  refused("should have", false, [](Bytes& b) { b.push_back(0); });
  refused("number of sections", true, [](Bytes& b) { b[24] = 8; });
  for (size_t at = 32; at < valid.size(); at += 97) refused("checksum", false, [&](Bytes& b) { b[at] ^= 1; });
  refused("where it should be", true, [&](Bytes& b) { put(b, 32, 256); });
  refused("where it should be", true, [&](Bytes& b) { put(b, 48, UINT64_MAX); });
  refused("leaves the file", true, [&](Bytes& b) { put(b, 40, UINT64_MAX); });
  refused("where it should be", true, [&](Bytes& b) { put(b, 40, 4096); });
  refused("follow its last section", true, [](Bytes& b) { b.insert(b.end(), 64, 0); });
  refused("leaves the file", true, [](Bytes& b) { b.erase(b.end() - 4, b.end()); });
}

TEST(compiled_contents_that_are_wrong) {
  const auto refused = [&](const char* fragment, const std::function<void(CompiledFile&)>& change) {
    CompiledFile file;
    change(file);
    CHECK_WITH(Opened(file.bytes()).status == DF_BAD_FILE && said(fragment), std::string(" ") + df_last_error());
  };
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  refused("noise of version 2", [](auto& f) { f.noise_version = 2; });
  refused("precision", [](auto& f) { f.precision = 2; });
  refused("too many registers", [](auto& f) { f.registers = 9; });
  refused("number of evaluations", [](auto& f) { f.outputs = 3; });
  refused("number of steps", [](auto& f) { f.steps = 0; });
  refused("initial scale", [](auto& f) { f.initial_scale = inf; });
  refused("guidance scale", [](auto& f) { f.guidance_scale = nan; });
  refused("value range is empty", [](auto& f) { f.high = -1; });
  refused("name of the model", [](auto& f) { f.name = ""; });
  refused("name of the model", [](auto& f) { f.name[2] = '\0'; });
  refused("not a text", [](auto& f) { f.about[1] = '\0'; });
  for (const char* text :
       {"\x80", "a\xff", "\xc3", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\x80\x80", "\xf4\x90\x80\x80"})
    refused("not a text", [&](auto& f) { f.about = text; });
  refused("too many dimensions", [](auto& f) { f.shape = {64, 1, 1, 1, 1, 1, 1, 1, 1}; });
  refused("a shape is too large", [](auto& f) { f.shape = {int64_t{1} << 62, 8}; });
  refused("a dimension below 1", [](auto& f) { f.shape = {-1, -64}; });
  refused("samples of another size", [](auto& f) { f.shape = {63}; });
  refused("number of inputs", [](auto& f) { f.inputs.clear(); });
  refused("one name", [](auto& f) { f.inputs.push_back(f.inputs[0]); });
  refused("name of an input", [](auto& f) { f.inputs[0].name = ""; });
  refused("type of an input", [](auto& f) { f.inputs[0].type = 4; });
  refused("another size", [](auto& f) { f.inputs[0].shape = {2}; });
  refused("no null value", [](auto& f) { f.inputs[0].has_null = false; });
  refused("null value is not finite", [](auto& f) { f.inputs[0].null = nan; });
  refused("number of classes", [](auto& f) { f.inputs[0].classes = 0; });
  refused("number of rows", [](auto& f) { f.rows.clear(), f.times.clear(); });
  refused("not that of rows", [](auto& f) { f.times.pop_back(); });
  refused("time is not finite", [](auto& f) { f.times[1] = nan; });
  refused("neither 0 nor 1", [](auto& f) { f.rows[0].calls_network = 2; });
  refused("neither 0 nor 1", [](auto& f) { f.rows[0].learned_s = -1; });
  refused("variance channel", [](auto& f) { f.rows[0].learned_s = 1; });
  refused("unknown reduction", [](auto& f) { f.rows[0].reduce = 4; });
  refused("phi", [](auto& f) { f.rows[0].reduce = 2, f.rows[0].reduce_0 = 2; });
  refused("does not exist", [](auto& f) { f.rows[0].write = 1; });
  refused("does not exist", [](auto& f) { f.rows[0].write = -2; });
  refused("no row has written", [](auto& f) { f.rows[0].c[0] = 1; });
  refused("no row has written", [](auto& f) { f.rows[1].c[7] = nan; });
  refused("not evaluated", [](auto& f) { f.rows[1].g[2] = 1; });
  refused("not evaluated", [](auto& f) { f.outputs = 1; });
  for (const auto& change : std::vector<std::function<void(df::Row&)>>{
           [](auto& r) { r.b = 1; }, [](auto& r) { r.e_m = 1; }, [](auto& r) { r.learned_s = 1; }, [](auto& r) { r.reduce = 2; }})
    refused("without calling it", [&](auto& f) { f.rows[1].calls_network = 0, f.rows[1].b = 0, change(f.rows[1]); });
  refused("the program is not valid", [](auto& f) { f.words[1] = 2; });
  refused("the program is not valid", [](auto& f) { f.words.clear(); });
  refused("exact operation", [](auto& f) { f.exact = {-1}; });
  refused("leaves its section", [](auto& f) { f.constants.pop_back(); });
  refused("follow the last constant", [](auto& f) { f.constants.push_back({1.0f}); });
}

// Mutated files with the right checksum: each is refused with a message, or draws samples.
TEST(compiled_mutated_files) {
  const Bytes valid = CompiledFile().bytes();
  std::mt19937_64 random(2);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  int refused = 0, drawn = 0;
  for (int round = 0; round < 10'000; ++round) {
    Bytes bytes = valid;
    for (size_t n = 1 + below(3); n > 0; --n) {
      // Each section as often as the others, the header among them.
      const size_t part = below(8);
      uint64_t place[2] = {0, 32 + 7 * 16};
      if (part > 0 && bytes.size() >= 32 + 7 * 16) std::memcpy(place, bytes.data() + 32 + 16 * (part - 1), sizeof place);
      if (place[1] == 0 || place[0] >= bytes.size() || place[1] > bytes.size() - place[0]) continue;
      const size_t at = static_cast<size_t>(place[0]) + below(static_cast<size_t>(place[1]));
      switch (below(8)) {
        case 0: bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at)); break;
        case 1: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), static_cast<unsigned char>(random())); break;
        case 2: bytes.resize(at); break;
        case 3: bytes[at] = static_cast<unsigned char>(random()); break;
        case 4: {  // a whole number
          const int64_t wild[] = {0, 1, 2, -1, INT64_MAX, INT64_MIN, int64_t{1} << 31, int64_t{1} << 40};
          const size_t word = at / 8 * 8;
          if (word + 8 <= bytes.size()) std::memcpy(bytes.data() + word, &wild[below(std::size(wild))], 8);
          break;
        }
        default: bytes[at] ^= static_cast<unsigned char>(1u << below(8));
      }
    }
    seal(bytes);
    try {  // a valid program may take more memory than a test has
      const df::compiled::Source source{bytes.size(), [&](uint64_t offset, void* to, size_t count) {
                                          if (count > 0) std::memcpy(to, bytes.data() + offset, count);
                                        }};
      if (!is_small(df::network::decode(df::compiled::read(source).words))) continue;
    } catch (const df::compiled::FileError&) {
    }
    const Opened opened(bytes);
    CHECK(opened.status == DF_OK || opened.status == DF_BAD_FILE);
    if (opened.status != DF_OK) {
      CHECK(opened.model == nullptr);
      ++refused;
      continue;
    }
    df_request request{};
    request.size = sizeof request;
    request.count = 2;
    std::vector<float> x(static_cast<size_t>(2 * df_describe(opened.model)->elements));
    const df_status status = df_sample(opened.model, &request, x.data());
    CHECK_WITH(status == DF_OK || status == DF_NOT_FINITE || status == DF_BAD_ARGUMENT || status == DF_FAILED,
               std::to_string(status));
    drawn += status == DF_OK;
  }
  CHECK_WITH(refused > 3'000 && drawn > 1'000, " " + std::to_string(refused) + " " + std::to_string(drawn));
}
