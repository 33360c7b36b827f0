#include "compiled_file.h"

#include <cstring>
#include <limits>

#include "network/program.h"

namespace {

void raw(Bytes& out, const void* from, size_t count) {
  const auto* bytes = static_cast<const unsigned char*>(from);
  out.insert(out.end(), bytes, bytes + count);
}

template <class T>
void put(Bytes& out, T value) {
  raw(out, &value, sizeof value);
}

template <class T>
Bytes array(const std::vector<T>& values) {
  Bytes out;
  raw(out, values.data(), values.size() * sizeof(T));
  return out;
}

void pad(Bytes& out) { out.resize((out.size() + 63) / 64 * 64); }

void text(Bytes& out, const std::string& value) {
  put(out, static_cast<uint32_t>(value.size()));
  raw(out, value.data(), value.size());
}

void sizes(Bytes& out, const std::vector<int64_t>& shape) {
  put(out, static_cast<uint32_t>(shape.size()));
  for (const int64_t size : shape) put(out, size);
}

// One bit at a time: the definition.
uint32_t crc(const unsigned char* bytes, size_t count) {
  uint32_t r = 0xffffffffu;
  for (size_t i = 0; i < 8 * count; ++i) {
    const uint32_t bit = (r ^ (bytes[i / 8] >> (i % 8))) & 1;
    r = (r >> 1) ^ (bit != 0 ? 0xedb88320u : 0u);
  }
  return ~r;
}

}  // namespace

CompiledFile::CompiledFile() : words(every_kind()), times{1.0f, 0.5f}, constants(constants_for(df::network::decode(words))) {
  for (int i = 0; i < 2; ++i) {
    df::Row row{};
    row.lo = -std::numeric_limits<float>::infinity();
    row.hi = std::numeric_limits<float>::infinity();
    row.r = 1.0f;
    row.calls_network = 1;
    row.g[0] = 2.0f;
    row.g[1] = -1.0f;
    row.a = 0.75f;
    row.b = 0.0625f;
    row.s = 0.25f;
    row.write = i == 0 ? 0 : -1;
    row.e_m = i == 0 ? 1.0f : 0.0f;
    row.c[0] = i == 0 ? 0.0f : 0.125f;
    rows.push_back(row);
  }
}

Bytes CompiledFile::bytes() const {
  Bytes model;
  for (const uint32_t number : {noise_version, precision, registers, outputs, steps}) put(model, number);
  put(model, initial_scale);
  put(model, guidance_scale);
  put(model, static_cast<uint32_t>(has_value_range));
  put(model, low);
  put(model, high);
  text(model, name);
  sizes(model, shape);
  put(model, static_cast<uint32_t>(inputs.size()));
  for (const FileInput& input : inputs) {
    text(model, input.name);
    put(model, input.type);
    sizes(model, input.shape);
    put(model, static_cast<uint32_t>(input.has_null));
    put(model, input.null);
    put(model, input.classes);
  }
  Bytes weights;
  for (const std::vector<float>& constant : constants) {
    pad(weights);
    raw(weights, constant.data(), constant.size() * sizeof(float));
  }
  const Bytes sections[] = {model, {about.begin(), about.end()}, array(words), array(exact), array(rows), array(times), weights};

  Bytes out = {0x89, 'D', 'F', 'P', '\r', '\n', 0x1a, '\n'};
  put(out, byte_order);
  put(out, version);
  out.resize(24);
  put(out, uint32_t{7});
  out.resize(32 + 7 * 16);
  for (size_t i = 0; i < 7; ++i) {
    pad(out);
    const uint64_t place[] = {out.size(), sections[i].size()};
    std::memcpy(out.data() + 32 + 16 * i, place, sizeof place);
    raw(out, sections[i].data(), sections[i].size());
  }
  seal(out);
  return out;
}

void seal(Bytes& bytes) {
  if (bytes.size() < 32) return;
  const uint64_t size = bytes.size();
  std::memcpy(bytes.data() + 16, &size, sizeof size);
  const uint32_t sum = crc(bytes.data() + 32, bytes.size() - 32);
  std::memcpy(bytes.data() + 28, &sum, sizeof sum);
}
