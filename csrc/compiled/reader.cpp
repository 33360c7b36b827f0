#include "compiled/reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <span>
#include <string_view>

#include "compiled/crc32.h"
#include "network/program.h"
#include "random/normal.h"
#include "step/step.h"
#include "threads/pool.h"

namespace df::compiled {
namespace {

static_assert(sizeof(Row) == 164, "another layout of a row is another version of the file");

constexpr std::array<unsigned char, 8> kMagic = {0x89, 'D', 'F', 'P', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kByteOrder = 0x01020304;  // a machine that reads another number refuses the file: numbers are read as they lie
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeader = 32, kAlignment = 64;
constexpr uint32_t kMostRank = 8, kMostText = 1u << 24;
constexpr uint64_t kMostRows = 1u << 20;
constexpr int64_t kMostElements = (int64_t{1} << 31) - 1;

enum SectionKind : uint32_t { kModel, kAbout, kProgram, kExact, kRows, kTimes, kConstants, kSections };
constexpr const char* kSectionNames[] = {"model", "about", "program", "exact", "rows", "times", "constants"};

struct Section {
  uint64_t offset = 0, bytes = 0;
};

[[noreturn]] void fail(const std::string& what) { throw FileError(what + "."); }

void require(bool condition, const char* what) {
  if (!condition) fail(std::string("the file is damaged: ") + what);
}

uint64_t aligned(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// ---- header -------------------------------------------------------------------------------------

template <class T>
T number_at(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

uint32_t checksum(const Source& source) {
  std::vector<unsigned char> piece(std::min<uint64_t>(source.size, uint64_t{1} << 20));
  uint32_t crc = 0;
  for (uint64_t at = kHeader; at < source.size;) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(piece.size(), source.size - at));
    source.read(at, piece.data(), count);
    crc = crc32(piece.data(), count, crc);
    at += count;
  }
  return crc;
}

// The sections, after the checks of the header: each where the one before it ends, at a multiple of 64.
std::array<Section, kSections> read_header(const Source& source) {
  unsigned char head[kHeader + kSections * sizeof(Section)] = {};
  if (source.size < sizeof head) fail("this is not a compiled model: the file has " + std::to_string(source.size) + " bytes");
  source.read(0, head, sizeof head);
  if (!std::equal(kMagic.begin(), kMagic.end(), head)) fail("this is not a compiled model: it does not begin as one does");
  const auto order = number_at<uint32_t>(head + 8), version = number_at<uint32_t>(head + 12);
  if (order == 0x04030201u) fail("the file was written for a machine of the other byte order");
  require(order == kByteOrder, "its mark of the byte order is wrong");
  if (version != kVersion)
    fail("the file has version " + std::to_string(version) + ", and this library reads version " + std::to_string(kVersion) +
         ": compile the model again");
  const auto size = number_at<uint64_t>(head + 16);
  if (size != source.size)
    fail("the file is damaged: it has " + std::to_string(source.size) + " bytes, and should have " + std::to_string(size));
  require(number_at<uint32_t>(head + 24) == kSections, "its number of sections is wrong");
  require(number_at<uint32_t>(head + 28) == checksum(source), "its checksum is wrong");

  std::array<Section, kSections> sections;
  uint64_t end = sizeof head;
  for (size_t i = 0; i < kSections; ++i) {
    const unsigned char* entry = head + kHeader + i * sizeof(Section);
    Section& section = sections[i];
    section = {number_at<uint64_t>(entry), number_at<uint64_t>(entry + 8)};
    require(section.offset == aligned(end), "a section is not where it should be");
    require(section.offset <= source.size && section.bytes <= source.size - section.offset, "a section leaves the file");
    end = section.offset + section.bytes;
  }
  require(end == source.size, "bytes follow its last section");
  return sections;
}

template <class T>
std::vector<T> read_array(const Source& source, const std::array<Section, kSections>& sections, SectionKind kind) {
  const Section& section = sections[kind];
  if (section.bytes % sizeof(T) != 0)
    fail(std::string("the file is damaged: the section '") + kSectionNames[kind] + "' has a wrong length");
  std::vector<T> out(static_cast<size_t>(section.bytes / sizeof(T)));
  source.read(section.offset, out.data(), static_cast<size_t>(section.bytes));
  return out;
}

// ---- the model ----------------------------------------------------------------------------------

// Well-formed UTF-8 without null characters (the table of well-formed byte sequences of the Unicode Standard).
bool is_text(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i++]);
    if (lead == 0) return false;
    if (lead < 0x80) continue;
    if (lead < 0xc2 || lead > 0xf4) return false;
    const int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (int k = 0; k < more; ++k, low = 0x80, high = 0xbf) {
      if (i == bytes.size()) return false;
      const auto next = static_cast<unsigned char>(bytes[i++]);
      if (next < low || next > high) return false;
    }
  }
  return true;
}

class Cursor {
 public:
  explicit Cursor(std::span<const unsigned char> bytes) : bytes_(bytes) {}

  template <class T>
  T next() {
    require(bytes_.size() >= sizeof(T), "the description of the model ends too early");
    const T value = number_at<T>(bytes_.data());
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  uint32_t next(uint32_t least, uint32_t most, const char* what) {
    const auto value = next<uint32_t>();
    require(value >= least && value <= most, what);
    return value;
  }
  double finite(const char* what) {
    const auto value = next<double>();
    require(std::isfinite(value), what);
    return value;
  }
  std::string text(const char* what) {
    const uint32_t length = next(1, kMostText, what);
    require(length <= bytes_.size(), "the description of the model ends too early");
    std::string out(reinterpret_cast<const char*>(bytes_.data()), length);
    require(is_text(out), what);
    bytes_ = bytes_.subspan(length);
    return out;
  }
  std::vector<int64_t> shape(int64_t& elements) {
    std::vector<int64_t> out(next(0, kMostRank, "a shape has too many dimensions"));
    elements = 1;
    for (int64_t& size : out) {
      size = next<int64_t>();
      require(size >= 1 && size <= kMostElements / elements, "a shape is too large, or has a dimension below 1");
      elements *= size;
    }
    return out;
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const unsigned char> bytes_;
};

Input read_input(Cursor& cursor) {
  Input input;
  input.name = cursor.text("the name of an input is wrong");
  input.type = static_cast<Type>(cursor.next(0, static_cast<uint32_t>(Type::kBool), "the type of an input is unknown"));
  input.shape = cursor.shape(input.elements);
  const bool has_null = cursor.next(0, 1, "a flag is neither 0 nor 1") == 1;
  const double null = cursor.finite("a null value is not finite");
  if (has_null) input.null = null;
  input.classes = cursor.next<int64_t>();
  require(input.classes == -1 || (input.classes >= 1 && input.classes <= kMostElements), "a number of classes is out of range");
  return input;
}

int read_model(std::span<const unsigned char> bytes, Contents& contents) {
  Cursor cursor(bytes);
  Description& description = contents.description;
  if (const auto noise = cursor.next<uint32_t>(); noise != static_cast<uint32_t>(kNoiseVersion))
    fail("the file is for noise of version " + std::to_string(noise) + ", and this library has version " +
         std::to_string(kNoiseVersion) + ": compile the model again");
  contents.precision = static_cast<network::Precision>(cursor.next(0, 1, "the precision is unknown"));
  const uint32_t registers = cursor.next(0, kMaxRegisters, "the plan has too many registers");
  contents.outputs = static_cast<int>(cursor.next(1, 2, "the number of evaluations is neither 1 nor 2"));
  description.steps = static_cast<int>(cursor.next(1, kMostRows, "the number of steps is out of range"));
  contents.initial_scale = cursor.next<float>();
  require(std::isfinite(contents.initial_scale), "the initial scale is not finite");
  description.guidance_scale = cursor.finite("the guidance scale is not finite");
  const bool has_range = cursor.next(0, 1, "a flag is neither 0 nor 1") == 1;
  const double low = cursor.finite("the value range is not finite"), high = cursor.finite("the value range is not finite");
  require(!has_range || low < high, "the value range is empty");
  if (has_range) description.value_range.emplace(low, high);
  description.name = cursor.text("the name of the model is wrong");
  description.shape = cursor.shape(description.elements);
  std::set<std::string> names;
  for (auto count = cursor.next<uint32_t>(); count > 0; --count) {  // each takes bytes, which bounds what is allocated
    description.inputs.push_back(read_input(cursor));
    require(names.insert(description.inputs.back().name).second, "two inputs have one name");
    require(contents.outputs == 1 || description.inputs.back().null.has_value(), "an input of a guided model has no null value");
  }
  require(cursor.left() == 0, "bytes follow the description of the model");
  return static_cast<int>(registers);
}

// ---- the plan -----------------------------------------------------------------------------------

// What the step does not check by itself: outputs that are not evaluated, and registers that hold nothing yet.
void check_row(const Row& row, int registers, int outputs, unsigned& written) {
  require((row.calls_network == 0 || row.calls_network == 1) && (row.learned_s == 0 || row.learned_s == 1),
          "a flag of a row is neither 0 nor 1");
  require(row.reduce >= 0 && row.reduce < static_cast<int32_t>(Reduce::kLangevinGiven), "a row has an unknown reduction");
  require(row.write >= -1 && row.write < registers, "a row writes a register that does not exist");
  if (row.calls_network == 0)
    require(row.b == 0.0f && row.e_m == 0.0f && row.learned_s == 0 && row.reduce == 0,
            "a row uses the network's output without calling it");
  for (int j = outputs; j < kMaxOutputs && row.calls_network == 1; ++j)
    require(row.g[j] == 0.0f, "a row weighs an output that is not evaluated");
  for (int k = 0; k < kMaxRegisters; ++k)
    require((row.c[k] == 0.0f && (row.write < 0 || row.f[k] == 0.0f)) || (written >> k & 1u) != 0,
            "a row reads a register that no row has written");
  if (row.write >= 0) written |= 1u << row.write;
}

std::shared_ptr<const loop::Plan> read_plan(const Source& source, const std::array<Section, kSections>& sections, int registers,
                                            int outputs) {
  auto plan = std::make_shared<loop::Plan>();
  plan->rows = read_array<Row>(source, sections, kRows);
  plan->times = read_array<float>(source, sections, kTimes);
  plan->registers = registers;
  require(!plan->rows.empty() && plan->rows.size() <= kMostRows, "its number of rows is out of range");
  require(plan->times.size() == plan->rows.size(), "the number of times is not that of rows");
  require(std::ranges::all_of(plan->times, [](float time) { return std::isfinite(time); }), "a time is not finite");
  unsigned written = 0;
  for (const Row& row : plan->rows) check_row(row, registers, outputs, written);
  return plan;
}

// ---- the program --------------------------------------------------------------------------------

network::ConstantSource constants_of(const network::Program& program, const Source& source, const Section& section) {
  struct Piece {
    uint64_t offset;
    size_t count;
  };
  std::vector<Piece> pieces;
  uint64_t end = 0;
  for (const network::Buffer& buffer : program.buffers) {
    if (buffer.source == network::Source::kMemory) continue;
    const auto count = static_cast<uint64_t>(buffer.size);  // below 2^31
    const uint64_t at = aligned(end);
    require(at <= section.bytes && count * sizeof(float) <= section.bytes - at, "a constant leaves its section");
    pieces.push_back({section.offset + at, static_cast<size_t>(count)});
    end = at + count * sizeof(float);
  }
  require(end == section.bytes, "bytes follow the last constant");
  const size_t count = pieces.size();
  return {count, [pieces = std::move(pieces), read = source.read](size_t number) {
            const Piece& piece = pieces.at(number);
            const auto values = std::make_shared<std::vector<float>>(piece.count);
            read(piece.offset, values->data(), piece.count * sizeof(float));
            return network::GivenConstant{*values, values};
          }};
}

void check_fit(const network::Program& program, const Contents& contents) {
  const Description& description = contents.description;
  const auto size = [&](int64_t buffer) { return program.buffers[static_cast<size_t>(buffer)].size; };
  require(size(program.inputs[0]) == description.elements, "the network takes samples of another size");
  require(size(program.inputs[1]) == 1, "the network takes more than one time for a sample");
  require(program.inputs.size() == 2 + description.inputs.size(), "the network has another number of inputs");
  for (size_t i = 0; i < description.inputs.size(); ++i)
    require(size(program.inputs[2 + i]) == description.inputs[i].elements, "an input of the network has another size");
  const int64_t output = size(program.output.buffer);
  require(output == description.elements || output == 2 * description.elements, "the network's output has a wrong size");
  for (const int64_t operation : contents.exact)
    require(operation >= 0 && operation < static_cast<int64_t>(program.operations.size()), "an exact operation does not exist");
}

}  // namespace

size_t size_of(Type type) {
  constexpr size_t kSizes[] = {4, 8, 4, 1};
  return kSizes[static_cast<size_t>(type)];
}

Contents read(const Source& source) {
  const FloatMode mode;
  const auto sections = read_header(source);
  Contents contents;
  const int registers = read_model(read_array<unsigned char>(source, sections, kModel), contents);
  const auto about = read_array<char>(source, sections, kAbout);
  contents.description.about.assign(about.begin(), about.end());
  require(is_text(contents.description.about), "what it says about itself is not a text");
  contents.plan = read_plan(source, sections, registers, contents.outputs);
  contents.words = read_array<int64_t>(source, sections, kProgram);
  contents.exact = read_array<int64_t>(source, sections, kExact);
  try {
    const network::Program program = network::decode(contents.words);
    check_fit(program, contents);
    contents.constants = constants_of(program, source, sections[kConstants]);
  } catch (const std::invalid_argument& error) {
    throw FileError(std::string("the file is damaged: ") + error.what());
  }
  return contents;
}

}  // namespace df::compiled
