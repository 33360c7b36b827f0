#include "programs.h"

#include <algorithm>
#include <bit>
#include <span>

namespace {

using Shape = std::vector<int64_t>;

int64_t product(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A view with one atom per dimension, by strides; row-major without them.
Words view(int64_t buffer, const Shape& shape, Shape strides = {}, int64_t offset = 0) {
  if (strides.empty()) {
    strides.resize(shape.size());
    for (size_t d = 0; d < shape.size(); ++d)
      strides[d] = product({shape.begin() + static_cast<std::ptrdiff_t>(d) + 1, shape.end()});
  }
  Words out{buffer, offset, static_cast<int64_t>(shape.size())};
  for (size_t d = 0; d < shape.size(); ++d) out = out + (shape[d] == 1 ? Words{0} : Words{1, shape[d], strides[d]});
  return out;
}

Words list(const std::vector<Words>& items) {
  Words out{static_cast<int64_t>(items.size())};
  for (const Words& item : items) out = out + item;
  return out;
}

Words operation(const Words& kind, const std::vector<Words>& inputs, const Words& output, const std::vector<Words>& prologue = {},
                const std::vector<Words>& epilogue = {}) {
  return kind + list(inputs) + output + list(prologue) + list(epilogue);
}

int64_t bits(double x) { return std::bit_cast<int64_t>(x); }

}  // namespace

Words every_kind() {
  const Words silu{0, 19, bits(0)}, norm{3, 0, 2, bits(1e-5), 3, 0, 1, 2};
  std::vector<Words> buffers, operations;
  const auto buffer = [&](int64_t size, int64_t level = 4, int64_t source = 0) {
    buffers.push_back({size, level, source});
    return static_cast<int64_t>(buffers.size()) - 1;
  };
  const Shape image{4, 4, 4}, last{1, 16, 4};
  const int64_t x = buffer(64), t = buffer(1, 1), label = buffer(1, 2);
  const int64_t kernel = buffer(144, 0, 1), bias = buffer(4, 0, 1), time_weight = buffer(4, 0, 1), table = buffer(12, 0, 2);
  const int64_t qkv_weight = buffer(16, 0, 1), first = buffer(8, 0, 2), second = buffer(8, 0, 2), share = buffer(8, 0, 2);
  const int64_t time = buffer(4, 1), embedded = buffer(4, 2), pair = buffer(4, 3);
  operations.push_back(operation({2, 1}, {view(t, {1, 1}), view(time_weight, {4, 1})}, view(time, {1, 4}), {{0, 20, 0}}, {silu}));
  operations.push_back(operation({9}, {view(table, {3, 4}), view(label, {})}, view(embedded, {4})));
  operations.push_back(operation({0}, {view(time, {4})}, view(pair, {4}), {Words{2, 0} + view(embedded, {4})}));
  const int64_t both = buffer(128);  // two images side by side
  const Words convolution{1, 2, 1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 0};
  operations.push_back(operation(convolution, {view(x, image), view(kernel, {4, 4, 3, 3}), view(bias, {4})},
                                 view(both, image, {1, 32, 8}), {norm, silu}, {Words{2, 0} + view(pair, image, {1, 0, 0})}));
  const int64_t qkv = buffer(192);
  operations.push_back(operation(
      {2, 3}, {view(both, {16, 4}, {8, 1}), view(qkv_weight, {4, 4}), view(qkv_weight, {4, 4}), view(qkv_weight, {4, 4}, {1, 4})},
      view(qkv, {16, 12}), {{3, 1, 1, bits(1e-5), 1, 1}}));
  const auto head = [&](int64_t part) { return view(qkv, {2, 16, 2}, {2, 12, 1}, 4 * part); };
  operations.push_back(operation({3, bits(0.7), 0, bits(0)}, {head(0), head(1), head(2)}, view(both, {2, 16, 2}, {2, 8, 1}, 4)));
  const int64_t scores = buffer(512), soft = buffer(512), mixed = buffer(64);
  operations.push_back(operation({4}, {head(0), view(qkv, {2, 2, 16}, {2, 1, 12}, 4)}, view(scores, {2, 16, 16})));
  operations.push_back(operation({5, 2}, {view(scores, {2, 16, 16})}, view(soft, {2, 16, 16})));
  operations.push_back(operation({4}, {view(soft, {2, 16, 16}), head(2)}, view(mixed, {2, 16, 2}, {2, 4, 1})));
  const int64_t mean = buffer(4), pooled = buffer(16), wide = buffer(128), out = buffer(64);
  operations.push_back(operation({6, 1, 2, 1, 2}, {view(mixed, image, {1, 16, 4})}, view(mean, {4, 1, 1})));
  operations.push_back(operation({7, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0}, {view(both, image, {1, 32, 8}, 4)},
                                 view(pooled, {4, 2, 2}, {1, 8, 4})));
  operations.push_back(operation({8, 1}, {view(mixed, image, last), view(first, {8}), view(second, {8}), view(share, {8})},
                                 view(wide, {4, 8, 4}, {1, 16, 4})));
  // Doubled pixels, the middle of the wide image, and the mean.
  Words doubled{pooled, 0, 3, 1, 4, 1, 2, 2, 8, 2, 0, 2, 2, 4, 2, 0};
  operations.push_back(
      operation({0}, {doubled}, view(out, image),
                {Words{2, 0} + view(wide, image, {1, 16, 4}, 32), Words{2, 3} + view(mean, image, {1, 0, 0}), {1, 3, bits(0.5)}}));
  return Words{0x444650524f47, 1} + list(buffers) + Words{3, x, t, label} + view(out, {64}) + list(operations);
}

std::vector<std::vector<float>> constants_for(const df::network::Program& program) {
  std::vector<std::vector<float>> out;
  for (const df::network::Buffer& buffer : program.buffers) {
    if (buffer.source == df::network::Source::kMemory) continue;
    std::vector<float> values(static_cast<size_t>(buffer.size));
    const bool indices = buffer.size == 8 && out.size() < 7;
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = indices ? static_cast<float>(i % 4) : static_cast<float>(i % 7) * 0.1f - 0.3f;
    out.push_back(std::move(values));
  }
  return out;
}

bool is_small(const df::network::Program& program) {
  double work = 0;
  for (const auto& buffer : program.buffers) work += static_cast<double>(buffer.size);
  for (const auto& op : program.operations) {
    double all = static_cast<double>(op.output.elements());
    for (const auto& input : op.inputs) all *= std::max<double>(1.0, static_cast<double>(input.elements()) / 8);
    work += all;
    if (const auto* c = std::get_if<df::network::Convolution>(&op.kind)) {
      for (const int64_t n : c->strides)
        work += static_cast<double>(n) * static_cast<double>(op.inputs[0].elements()) * c->transposed;
      for (const auto& list : {c->pads, c->dilations})
        for (const int64_t n : list) work += static_cast<double>(n) * 1e3;
    }
    if (const auto* p = std::get_if<df::network::Pool>(&op.kind))
      for (const int64_t n : p->kernel) work += static_cast<double>(n) * 1e3;
  }
  return work < 3e7;
}

std::unique_ptr<df::network::Network> network_of_every_kind(const char* kernel, int64_t budget) {
  const Words words = every_kind();
  const auto constants = constants_for(df::network::decode(words));
  const std::vector<std::span<const float>> spans(constants.begin(), constants.end());
  return std::make_unique<df::network::Network>(words, df::network::in_memory(spans), *df::network::find_kernels(kernel),
                                                df::network::Precision::kFloat32, std::span<const int64_t>(), budget);
}
