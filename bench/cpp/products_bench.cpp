// Times the products of csrc/network on layers of the benchmark's networks, one thread, each algorithm in turn.
//
// Prints the layer, then for each algorithm the best time of many, in G multiply-adds of the direct convolution per second and, in
// brackets, the share of the peak of this core that its own multiply-adds reach. The peak is measured by a loop of fma in
// registers.
//
//   products_bench [kernel] [layer...]   kernel: scalar, avx2, avx512; layer: a part of a layer's name

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "network/products/panel.h"
#include "network/products/products.h"
#include "network/products/winograd.h"

namespace {

using namespace df::network;

// Seconds of this thread on a processor: what others do on the machine counts as little as it can.
double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Floats {
  explicit Floats(int64_t count)
      : data(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(round_to_panel(count) * 4 + 64)))) {
    for (int64_t i = 0; i < count; ++i) data[i] = static_cast<float>(i * 7919 % 1000 - 500) / 500.0f;
  }
  ~Floats() { std::free(data); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  float* data;
};

struct Layer {
  const char* name;
  int64_t batch, size, channels, outputs;
  int64_t kernel = 3, stride = 1;
};

const Layer kLayers[] = {
    {"digits 8x8 first", 1, 8, 1, 32},       {"digits 8x8", 1, 8, 32, 32},
    {"digits 8x8 b16", 16, 8, 32, 32},       {"digits 8x8 up", 1, 8, 96, 32},
    {"digits 8x8 down", 1, 8, 32, 32, 3, 2}, {"digits 4x4", 1, 4, 64, 64},
    {"digits 4x4 b16", 16, 4, 64, 64},       {"digits 4x4 up", 1, 4, 128, 64},
    {"digits 8x8 1x1", 1, 8, 64, 32, 1},     {"digits 8x8 last", 1, 8, 32, 1},
    {"unet28 28x28", 1, 28, 32, 32},         {"unet28 28x28 up", 1, 28, 96, 32},
    {"unet28 14x14", 1, 14, 64, 64},         {"unet28 14x14 b16", 16, 14, 64, 64},
    {"unet28 7x7", 1, 7, 128, 128},          {"unet28 7x7 b16", 16, 7, 128, 128},
    {"cifar 32x32", 1, 32, 128, 128},        {"cifar 32x32 up", 1, 32, 256, 128},
    {"cifar 32x32 384", 1, 32, 384, 128},    {"cifar 32x32 first", 1, 32, 3, 128},
    {"cifar 32x32 last", 1, 32, 128, 3},     {"cifar 32x32 down", 1, 32, 128, 128, 3, 2},
    {"cifar 16x16", 1, 16, 256, 256},        {"cifar 16x16 up", 1, 16, 512, 256},
    {"cifar 8x8", 1, 8, 256, 256},           {"cifar 8x8 b8", 8, 8, 256, 256},
    {"cifar 4x4", 1, 4, 256, 256},           {"cifar 4x4 b8", 8, 4, 256, 256},
    {"cifar 16x16 1x1", 1, 16, 512, 256, 1}, {"mlp 64", 1, 1, 64, 64, 1},
    {"mlp 64 b64", 64, 1, 64, 64, 1},        {"time 512", 1, 1, 512, 512, 1},
};

struct Run {
  ConvolutionShape shape;
  ConvolutionAlgorithm algorithm;
  int64_t batch;
  Floats packed, input, output, bias, residual;
  int64_t cache;
  Floats scratch;
  std::vector<const float*> in, add;
  std::vector<float*> out;
  double best = 1e9;

  Run(const ConvolutionShape& s, ConvolutionAlgorithm a, int64_t n, int64_t cache_bytes)
      : shape(s),
        algorithm(a),
        batch(n),
        packed(packed_convolution_size(s, a)),
        input(n * s.height * s.width * s.channels),
        output(n * s.out_height * s.out_width * s.outputs),
        bias(s.outputs),
        residual(n * s.out_height * s.out_width * s.outputs),
        cache(cache_bytes),
        scratch(convolution_scratch_size(s, a, n, cache_bytes)) {
    for (int64_t i = 0; i < n; ++i) {
      in.push_back(input.data + i * s.height * s.width * s.channels);
      out.push_back(output.data + i * s.out_height * s.out_width * s.outputs);
      add.push_back(residual.data + i * s.out_height * s.out_width * s.outputs);
    }
  }

  void once(const ProductKernels& kernels) const {
    ImageSource source;
    source.pixels = {in.data(), shape.width * shape.channels, shape.channels};
    ImageTarget target;
    target.pixels = {out.data(), shape.out_width * shape.outputs, shape.outputs};
    target.bias = bias.data;
    target.stages[0] = {false, {add.data(), shape.out_width * shape.outputs, shape.outputs}};
    target.stage_count = 1;
    kernels.convolution(shape, algorithm, packed.data, source, target, batch, {}, cache, scratch.data);
  }

  double work() const {
    return static_cast<double>(batch * shape.out_height * shape.out_width * shape.outputs * shape.channels * shape.kernel_height *
                               shape.kernel_width);
  }
  double own_work() const {
    if (algorithm == ConvolutionAlgorithm::kDirect) return work();
    const int64_t m = algorithm == ConvolutionAlgorithm::kWinograd4 ? 4 : 2;
    return static_cast<double>(batch * ((shape.out_height + m - 1) / m) * ((shape.out_width + m - 1) / m) * (m + 2) * (m + 2) *
                               shape.outputs * shape.channels);
  }
};

}  // namespace

int main(int count, char** words) {
  const std::vector<const ProductKernels*> all = {
#if defined(DF_HAVE_AVX2)
      &products_avx2,
#endif
      &products_scalar,
#if defined(DF_HAVE_AVX512)
      &products_avx512,
#endif
#if defined(DF_HAVE_NEON)
      &products_neon,
#endif
  };
  const ProductKernels* kernels = all.front();
  for (const ProductKernels* k : all)
    if (count > 1 && std::strcmp(words[1], k->name) == 0) kernels = k;
  const char* cache_text = std::getenv("CACHE_KIB");
  const int64_t cache = cache_text != nullptr ? std::atoll(cache_text) << 10 : kDefaultCacheBytes;

  std::printf("%s\n", kernels->name);
  for (const Layer& layer : kLayers) {
    bool wanted = count < 3;
    for (int i = 2; i < count; ++i) wanted = wanted || std::strstr(layer.name, words[i]) != nullptr;
    if (!wanted) continue;
    ConvolutionShape s{};
    s.channels = layer.channels;
    s.outputs = layer.outputs;
    s.height = s.width = layer.size;
    s.kernel_height = s.kernel_width = layer.kernel;
    s.stride_y = s.stride_x = layer.stride;
    s.pad_top = s.pad_left = layer.kernel / 2;
    s.out_height = s.out_width = (layer.size - 1) / layer.stride + 1;
    std::vector<std::unique_ptr<Run>> runs;
    runs.push_back(std::make_unique<Run>(s, ConvolutionAlgorithm::kDirect, layer.batch, cache));
    if (is_winograd_shape(s)) {
      runs.push_back(std::make_unique<Run>(s, ConvolutionAlgorithm::kWinograd2, layer.batch, cache));
      runs.push_back(std::make_unique<Run>(s, ConvolutionAlgorithm::kWinograd4, layer.batch, cache));
    }
    // Alternating, so that whatever else the machine does meets all of them.
    for (const double end = now() + 0.25; now() < end;) {
      for (auto& run : runs) {
        const int64_t repeats = std::max<int64_t>(1, static_cast<int64_t>(2e6 / run->work()));
        const double begin = now();
        for (int64_t i = 0; i < repeats; ++i) run->once(*kernels);
        run->best = std::min(run->best, (now() - begin) / static_cast<double>(repeats));
      }
    }
    std::printf("%-20s b%-3ld %4ld -> %-4ld %8.1f M", layer.name, static_cast<long>(layer.batch), static_cast<long>(layer.channels),
                static_cast<long>(layer.outputs), runs[0]->work() / 1e6);
    for (const auto& run : runs)
      std::printf("   %s %9.1f us %6.1f G (%5.1f own)",
                  run->algorithm == ConvolutionAlgorithm::kDirect      ? "direct"
                  : run->algorithm == ConvolutionAlgorithm::kWinograd2 ? "F(2,3)"
                                                                       : "F(4,3)",
                  run->best * 1e6, run->work() / run->best / 1e9, run->own_work() / run->best / 1e9);
    std::printf("\n");
  }
  return 0;
}
