// The products of the network: every algorithm and instruction set against a convolution in double precision.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "fixtures.h"
#include "network/products/panel.h"
#include "network/products/products.h"
#include "step/cpu/kernels.h"

namespace {

using namespace df::network;
using Algorithm = ConvolutionAlgorithm;

// The kernels that this machine can run.
std::vector<const ProductKernels*> runnable() {
  std::vector<const ProductKernels*> all = {
      &products_scalar,
#if defined(DF_HAVE_AVX2)
      &products_avx2,
#endif
#if defined(DF_HAVE_AVX512)
      &products_avx512,
#endif
#if defined(DF_HAVE_NEON)
      &products_neon,
#endif
  };
  std::erase_if(all, [](const ProductKernels* k) { return df::find_kernel(k->name)->unavailable() != nullptr; });
  return all;
}

std::vector<float> floats(Random& random, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = random.uniform();
  return values;
}

// One convolution with its data.
struct Problem {
  ConvolutionShape shape;
  int64_t samples = 1;
  bool biased = true;
  bool written = true;                    // the input comes from a function, else from memory
  int64_t input_gap = 0, output_gap = 0;  // channels between pixels that are not part of the image
  std::vector<bool> stages;               // whether each multiplies; the first operand is one vector per sample
  std::vector<float> weights, bias, input, vectors, images;

  Problem(const ConvolutionShape& s, int64_t n, Random& random) : shape(s), samples(n) {
    weights = floats(random, s.outputs * s.channels / s.groups * s.kernel_height * s.kernel_width);
    bias = floats(random, s.outputs);
    input = floats(random, n * s.height * s.width * s.channels);
    vectors = floats(random, n * s.outputs);
    images = floats(random, n * pixels() * s.outputs);
  }
  int64_t pixels() const { return shape.out_height * shape.out_width; }
  std::string text() const {
    const ConvolutionShape& s = shape;
    std::string line = std::to_string(samples) + " samples";
    for (int64_t n : {s.channels, s.outputs, s.groups, s.height, s.width, s.out_height, s.out_width, s.kernel_height,
                      s.kernel_width, s.stride_y, s.stride_x, s.dilation_y, s.dilation_x, s.pad_top, s.pad_left})
      line.append(" ").append(std::to_string(n));
    return line;
  }
};

// The result in double, and the sum of magnitudes that bounds the rounding of each element.
struct Exactly {
  std::vector<double> value, magnitude;
};

Exactly reference(const Problem& p) {
  const ConvolutionShape& s = p.shape;
  const int64_t inner = s.channels / s.groups, columns = s.outputs / s.groups;
  Exactly result;
  for (int64_t n = 0; n < p.samples; ++n)
    for (int64_t y = 0; y < s.out_height; ++y)
      for (int64_t x = 0; x < s.out_width; ++x)
        for (int64_t o = 0; o < s.outputs; ++o) {
          double sum = p.biased ? p.bias[static_cast<size_t>(o)] : 0.0, size = std::fabs(sum);
          for (int64_t c = 0; c < inner; ++c)
            for (int64_t ky = 0; ky < s.kernel_height; ++ky)
              for (int64_t kx = 0; kx < s.kernel_width; ++kx) {
                const int64_t iy = y * s.stride_y - s.pad_top + ky * s.dilation_y,
                              ix = x * s.stride_x - s.pad_left + kx * s.dilation_x;
                if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
                const double w = p.weights[static_cast<size_t>(((o * inner + c) * s.kernel_height + ky) * s.kernel_width + kx)];
                const double v =
                    p.input[static_cast<size_t>(((n * s.height + iy) * s.width + ix) * s.channels + o / columns * inner + c)];
                sum += w * v;
                size += std::fabs(w * v);
              }
          for (size_t i = 0; i < p.stages.size(); ++i) {
            const double operand = i == 0
                                       ? p.vectors[static_cast<size_t>(n * s.outputs + o)]
                                       : p.images[static_cast<size_t>(((n * s.out_height + y) * s.out_width + x) * s.outputs + o)];
            sum = p.stages[i] ? sum * operand : sum + operand;
            size = p.stages[i] ? size * std::fabs(operand) : size + std::fabs(operand);
          }
          result.value.push_back(sum);
          result.magnitude.push_back(size);
        }
  return result;
}

// What the writer of the input gets.
struct Writer {
  const Problem& problem;
  const float* const* samples;
  static void write(void* context, int64_t sample, int64_t y_begin, int64_t y_end, float* destination, int64_t row, int64_t pixel) {
    const Writer& self = *static_cast<const Writer*>(context);
    const ConvolutionShape& s = self.problem.shape;
    for (int64_t y = y_begin; y < y_end; ++y)
      for (int64_t x = 0; x < s.width; ++x)
        std::memcpy(destination + (y - y_begin) * row + x * pixel, self.samples[sample] + (y * s.width + x) * s.channels,
                    static_cast<size_t>(s.channels) * 4);
  }
};

// Runs it on exactly sized memory, part by part. The result is (sample, y, x, output).
std::vector<float> run(const ProductKernels& kernels, const Problem& p, Algorithm algorithm,
                       int64_t cache_bytes = kDefaultCacheBytes, int64_t parts = 1) {
  const ConvolutionShape& s = p.shape;
  const int64_t packed_floats = packed_convolution_size(s, algorithm);
  const int64_t scratch_floats = round_to_panel(convolution_scratch_size(s, algorithm, p.samples, cache_bytes));
  Exact packed(packed_floats * 4), scratch(scratch_floats * 4);
  pack_convolution(s, algorithm, p.weights.data(), packed.as<float>());
  std::fill(scratch.as<float>(), scratch.as<float>() + scratch_floats, std::numeric_limits<float>::quiet_NaN());

  const int64_t in_pixel = s.channels + (p.written ? 0 : p.input_gap), in_sample = s.height * s.width * in_pixel;
  const int64_t out_pixel = s.outputs + p.output_gap, out_sample = p.pixels() * out_pixel;
  const float guard = 12345.0f;
  std::vector<float> input(static_cast<size_t>(p.samples * in_sample), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> output(static_cast<size_t>(p.samples * out_sample), guard);
  for (int64_t i = 0; i < p.samples * s.height * s.width; ++i)
    std::memcpy(input.data() + i * in_pixel, p.input.data() + i * s.channels, static_cast<size_t>(s.channels) * 4);

  std::vector<const float*> in, vectors, images;
  std::vector<float*> out;
  for (int64_t n = 0; n < p.samples; ++n) {
    in.push_back(input.data() + n * in_sample);
    out.push_back(output.data() + n * out_sample);
    vectors.push_back(p.vectors.data() + n * s.outputs);
    images.push_back(p.images.data() + n * p.pixels() * s.outputs);
  }
  Writer writer{p, in.data()};
  ImageSource source;
  if (p.written) {
    source.write = Writer::write;
    source.context = &writer;
  } else {
    source.pixels = {in.data(), s.width * in_pixel, in_pixel};
  }
  ImageTarget target;
  target.pixels = {out.data(), s.out_width * out_pixel, out_pixel};
  target.bias = p.biased ? p.bias.data() : nullptr;
  for (bool multiply : p.stages) {
    OutputStage& stage = target.stages[target.stage_count];
    stage.multiply = multiply;
    stage.operand = target.stage_count == 0 ? Pixels<const float>{vectors.data(), 0, 0}
                                            : Pixels<const float>{images.data(), s.out_width * s.outputs, s.outputs};
    ++target.stage_count;
  }
  // Each output row is reported once, in order, and is complete then.
  struct Seen {
    const Problem& problem;
    std::vector<int64_t> next;
    bool ordered = true;
  } seen{p, std::vector<int64_t>(static_cast<size_t>(p.samples), 0)};
  target.context = &seen;
  // Parts of output channels report nothing.
  const bool reports = parts == 1 || p.biased;
  if (reports)
    target.finish = [](void* context, int64_t sample, int64_t y_begin, int64_t y_end) {
      Seen& self = *static_cast<Seen*>(context);
      self.ordered = self.ordered && self.next[static_cast<size_t>(sample)] == y_begin && y_end > y_begin;
      self.next[static_cast<size_t>(sample)] = y_end;
    };
  for (int64_t part = 0; part < parts; ++part)
    kernels.convolution(s, algorithm, packed.as<float>(), source, target, p.samples, {part, parts}, cache_bytes,
                        scratch.as<float>());
  CHECK_WITH(
      !reports || (seen.ordered && std::all_of(seen.next.begin(), seen.next.end(), [&](int64_t y) { return y == s.out_height; })),
      p.text());

  std::vector<float> result;
  bool kept = true;
  for (int64_t i = 0; i < p.samples * p.pixels(); ++i) {
    for (int64_t o = 0; o < s.outputs; ++o) result.push_back(output[static_cast<size_t>(i * out_pixel + o)]);
    for (int64_t o = s.outputs; o < out_pixel; ++o) kept = kept && output[static_cast<size_t>(i * out_pixel + o)] == guard;
  }
  CHECK_WITH(kept, p.text());
  return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<Algorithm> algorithms(const ConvolutionShape& shape) {
  if (!is_winograd_shape(shape)) return {Algorithm::kDirect};
  return {Algorithm::kDirect, Algorithm::kWinograd2, Algorithm::kWinograd4};
}

// The largest error allowed, in units of 2^-24 times the sum of magnitudes. A chain of K fma has at most K of them, and about
// sqrt(K) in practice; Winograd's transforms grow magnitudes: by 4 in F(2,3) and by about 100 in F(4,3) at the worst element.
double bound(const ConvolutionShape& s, Algorithm algorithm) {
  const double depth = static_cast<double>(s.channels / s.groups * s.kernel_height * s.kernel_width);
  const double chain = 4 + std::sqrt(depth);
  return algorithm == Algorithm::kDirect ? chain : algorithm == Algorithm::kWinograd2 ? 8 * chain : 100 * chain;
}

void check_error(const Problem& p, Algorithm algorithm, const Exactly& exactly, const std::vector<float>& result) {
  // Winograd mixes the pixels of a tile, so the error of one may come from the magnitude of its neighbour.
  const double largest = *std::max_element(exactly.magnitude.begin(), exactly.magnitude.end());
  double worst = 0;
  for (size_t i = 0; i < result.size(); ++i) {
    const double scale = (algorithm == Algorithm::kDirect ? exactly.magnitude[i] : largest) * 0x1p-24 + 1e-30;
    const double error = std::fabs(result[i] - exactly.value[i]) / scale;
    worst = error <= worst ? worst : error;  // keeps NaN
  }
  CHECK_WITH(worst <= bound(p.shape, algorithm),
             p.text() + " algorithm " + std::to_string(static_cast<int>(algorithm)) + ": error " + std::to_string(worst));
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t before, int64_t after) {
  return (size + before + after - (kernel - 1) * dilation - 1) / stride + 1;
}

// A random shape. Half of them are 3x3 with stride 1.
ConvolutionShape random_shape(Random& random) {
  ConvolutionShape s{};
  const bool plain = random.coin();
  s.groups = plain || random.below(3) > 0 ? 1 : 1 + random.below(4);
  const int64_t most = s.groups == 1 ? 40 : 20;
  s.channels = s.groups * (1 + random.below(static_cast<int>(most)));
  s.outputs = s.groups * (1 + random.below(static_cast<int>(most)));
  for (;;) {
    s.height = 1 + random.below(13);
    s.width = 1 + random.below(13);
    s.kernel_height = plain ? 3 : 1 + random.below(4);
    s.kernel_width = plain ? 3 : 1 + random.below(5);
    s.stride_y = plain ? 1 : 1 + random.below(3);
    s.stride_x = plain ? 1 : 1 + random.below(3);
    s.dilation_y = plain ? 1 : 1 + random.below(2);
    s.dilation_x = plain ? 1 : 1 + random.below(2);
    s.pad_top = random.below(3);
    s.pad_left = random.below(3);
    const int64_t bottom = random.below(3), right = random.below(3);
    const int64_t room_y = s.height + s.pad_top + bottom - (s.kernel_height - 1) * s.dilation_y;
    const int64_t room_x = s.width + s.pad_left + right - (s.kernel_width - 1) * s.dilation_x;
    if (room_y < 1 || room_x < 1) continue;
    s.out_height = output_size(s.height, s.kernel_height, s.stride_y, s.dilation_y, s.pad_top, bottom);
    s.out_width = output_size(s.width, s.kernel_width, s.stride_x, s.dilation_x, s.pad_left, right);
    return s;
  }
}

Problem random_problem(Random& random) {
  Problem p(random_shape(random), 1 + random.below(4), random);
  p.biased = random.coin();
  p.written = random.coin();
  p.input_gap = random.below(3);
  p.output_gap = random.below(3);
  for (int i = random.below(4); i > 0; --i) p.stages.push_back(random.coin());
  return p;
}

ConvolutionShape square(int64_t size, int64_t channels, int64_t outputs) {
  ConvolutionShape s{};
  s.channels = channels;
  s.outputs = outputs;
  s.height = s.width = s.out_height = s.out_width = size;
  s.kernel_height = s.kernel_width = 3;
  s.pad_top = s.pad_left = 1;
  return s;
}

}  // namespace

TEST(products_match_a_convolution_in_double) {
  Random random(1);
  for (int i = 0; i < 300; ++i) {
    // The last ones have chains that are cut.
    Problem p = i < 296 ? random_problem(random) : Problem(square(4 + i % 2, i < 298 ? 300 : 512, i % 2 ? 24 : 150), 2, random);
    if (i >= 296) p.stages = {true, false};
    const Exactly exactly = reference(p);
    for (Algorithm algorithm : algorithms(p.shape)) {
      std::vector<float> first;
      for (const ProductKernels* kernels : runnable()) {
        const std::vector<float> result = run(*kernels, p, algorithm);
        if (first.empty()) {
          check_error(p, algorithm, exactly, result);
          first = result;
        }
        CHECK_WITH(same_bits(first, result), std::string(kernels->name) + ": " + p.text());
      }
    }
  }
}

TEST(products_of_larger_layers_are_accurate) {
  Random random(2);
  for (const ConvolutionShape& shape : {square(16, 64, 48), square(14, 96, 32), square(8, 160, 64), square(28, 16, 16)}) {
    Problem p(shape, 2, random);
    p.stages = {false, false};
    const Exactly exactly = reference(p);
    for (Algorithm algorithm : algorithms(shape)) check_error(p, algorithm, exactly, run(*runnable().back(), p, algorithm));
  }
}

TEST(products_keep_their_bits_in_every_chunk) {
  Random random(3);
  for (int i = 0; i < 60; ++i) {
    const Problem p = i < 50 ? random_problem(random) : Problem(square(8 + i % 3, 24, 33), 5, random);
    for (Algorithm algorithm : algorithms(p.shape)) {
      const ProductKernels& kernels = *runnable().back();
      const std::vector<float> whole = run(kernels, p, algorithm, int64_t{1} << 30);
      for (int64_t cache_bytes : {int64_t{1} << 10, int64_t{1} << 14, int64_t{1} << 17})
        CHECK_WITH(same_bits(whole, run(kernels, p, algorithm, cache_bytes)), p.text());
    }
  }
}

TEST(products_keep_their_bits_in_parts) {
  Random random(5);
  for (int i = 0; i < 60; ++i) {
    Problem p = i < 50 ? random_problem(random) : Problem(square(4 + i % 5 * 4, 24, 200), 1, random);
    p.biased = i % 3 == 0;
    if (p.samples > 1) p = Problem(p.shape, 1, random);
    for (Algorithm algorithm : algorithms(p.shape)) {
      const ProductKernels& kernels = *runnable().back();
      const std::vector<float> whole = run(kernels, p, algorithm);
      for (int64_t parts : {2, 3, 7}) CHECK_WITH(same_bits(whole, run(kernels, p, algorithm, kDefaultCacheBytes, parts)), p.text());
    }
  }
}

TEST(products_keep_their_bits_in_every_batch) {
  Random random(4);
  for (int i = 0; i < 40; ++i) {
    Problem p = random_problem(random);
    for (Algorithm algorithm : algorithms(p.shape)) {
      const ProductKernels& kernels = *runnable().back();
      const std::vector<float> together = run(kernels, p, algorithm);
      const auto each = static_cast<int64_t>(together.size()) / p.samples;
      const auto part = [&](const std::vector<float>& all, int64_t n) {
        const auto size = static_cast<int64_t>(all.size()) / p.samples;
        return std::vector<float>(all.begin() + n * size, all.begin() + (n + 1) * size);
      };
      for (int64_t n = 0; n < p.samples; ++n) {
        Problem alone = p;
        alone.samples = 1;
        alone.input = part(p.input, n);
        alone.vectors = part(p.vectors, n);
        alone.images = part(p.images, n);
        CHECK_WITH(same_bits(run(kernels, alone, algorithm),
                             std::vector<float>(together.begin() + n * each, together.begin() + (n + 1) * each)),
                   p.text());
      }
    }
  }
}

TEST(products_keep_nan_in_its_sample) {
  Random random(5);
  for (int i = 0; i < 20; ++i) {
    Problem p(i < 10 ? random_shape(random) : square(8, 20, 20), 3, random);
    for (Algorithm algorithm : algorithms(p.shape)) {
      for (const ProductKernels* kernels : runnable()) {
        const std::vector<float> clean = run(*kernels, p, algorithm);
        Problem broken = p;
        const size_t size = p.input.size() / 3;
        std::fill(broken.input.begin() + static_cast<int64_t>(size), broken.input.begin() + static_cast<int64_t>(2 * size),
                  std::numeric_limits<float>::quiet_NaN());
        const std::vector<float> result = run(*kernels, broken, algorithm);
        const size_t each = result.size() / 3;
        CHECK(std::memcmp(result.data(), clean.data(), each * 4) == 0);
        CHECK(std::memcmp(result.data() + 2 * each, clean.data() + 2 * each, each * 4) == 0);
        // An output that sees only padding is its bias; every other one is NaN.
        for (size_t k = each; k < 2 * each; ++k)
          CHECK_WITH(std::isnan(result[k]) || result[k] == p.bias[(k - each) % static_cast<size_t>(p.shape.outputs)], p.text());
      }
    }
  }
}

TEST(linear_is_a_1x1_convolution) {
  Random random(6);
  for (int64_t rows : {1, 2, 3, 4, 7, 15, 29}) {
    for (int64_t columns : {1, 16, 33, 64, 100, 112}) {
      Problem p(linear_shape(rows, 37, columns), 2, random);
      p.written = rows % 2 == 0;
      const Exactly exactly = reference(p);
      std::vector<float> first;
      for (const ProductKernels* kernels : runnable()) {
        const std::vector<float> result = run(*kernels, p, Algorithm::kDirect);
        if (first.empty()) check_error(p, Algorithm::kDirect, exactly, result);
        if (first.empty()) first = result;
        CHECK(same_bits(first, result));
      }
    }
  }
}

TEST(the_algorithm_depends_on_the_shape) {
  CHECK(float32_algorithm(square(8, 32, 32)) == Algorithm::kWinograd2);
  CHECK(float32_algorithm(square(32, 128, 128)) == Algorithm::kWinograd2);
  CHECK(float32_algorithm(square(4, 64, 128)) == Algorithm::kWinograd2);
  CHECK(float32_algorithm(square(4, 128, 128)) == Algorithm::kDirect);
  CHECK(float32_algorithm(square(7, 128, 128)) == Algorithm::kWinograd2);
  CHECK(float32_algorithm(square(3, 64, 64)) == Algorithm::kDirect);
  CHECK(float32_algorithm(square(32, 3, 128)) == Algorithm::kDirect);
  CHECK(float32_algorithm(square(32, 128, 3)) == Algorithm::kDirect);
  CHECK(fast_algorithm(square(8, 32, 32)) == Algorithm::kWinograd4);
  CHECK(fast_algorithm(square(8, 256, 256)) == Algorithm::kWinograd2);
  CHECK(fast_algorithm(square(4, 64, 64)) == Algorithm::kWinograd2);
  ConvolutionShape strided = square(32, 64, 64);
  strided.stride_y = strided.stride_x = 2;
  CHECK(float32_algorithm(strided) == Algorithm::kDirect);
}
