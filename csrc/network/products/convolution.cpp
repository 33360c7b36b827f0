#include "network/products/convolution.h"

#include <algorithm>
#include <vector>

#include "network/products/panel.h"
#include "network/products/winograd.h"

namespace df::network {
namespace {

// Pixels of one chunk of a direct convolution: enough that reading the weights costs little against using them.
constexpr int64_t kDirectPixels = 192;

// Tiles of a chunk of Winograd's algorithms, at least: fewer would wait for the weights, which come from beyond the cache.
constexpr int64_t kFewTiles = 32;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Floats of the rows of padded input that `rows` output rows of one sample read.
int64_t strip_size(const ConvolutionShape& s, int64_t rows) { return strip_rows(s, rows) * strip_width(s) * s.channels; }

int winograd_outputs(ConvolutionAlgorithm algorithm) { return algorithm == ConvolutionAlgorithm::kWinograd4 ? 4 : 2; }

template <int kOutputs>
void pack_winograd(const ConvolutionShape& s, const float* weights, float* packed) {
  using W = Winograd<kOutputs>;
  const int64_t depth = s.channels, panels = panels_of(s.outputs);
  std::fill(packed, packed + W::kProducts * packed_size(depth, s.outputs), 0.0f);
  for (int64_t output = 0; output < s.outputs; ++output) {
    const int64_t panel = output / kPanel, first = panel / kGroup * kGroup,
                  size = std::min(kGroup, panels - first) * depth * kPanel;
    for (int64_t channel = 0; channel < depth; ++channel) {
      const float* w = weights + (output * depth + channel) * 9;
      float* out = packed + first * W::kProducts * depth * kPanel + ((panel - first) * depth + channel) * kPanel + output % kPanel;
      double half[W::kTile][3];  // G w
      for (int y = 0; y < W::kTile; ++y)
        for (int x = 0; x < 3; ++x)
          half[y][x] = W::kWeights[y][0] * w[x] + W::kWeights[y][1] * w[3 + x] + W::kWeights[y][2] * w[6 + x];
      for (int y = 0; y < W::kTile; ++y)
        for (int x = 0; x < W::kTile; ++x, out += size)  // (G w) G^T
          *out =
              static_cast<float>(half[y][0] * W::kWeights[x][0] + half[y][1] * W::kWeights[x][1] + half[y][2] * W::kWeights[x][2]);
    }
  }
}

void pack_direct(const ConvolutionShape& s, const float* weights, float* packed) {
  const int64_t inner = s.channels / s.groups, columns = s.outputs / s.groups, taps = s.kernel_height * s.kernel_width;
  const int64_t depth = inner * taps, size = packed_size(depth, columns);
  std::fill(packed, packed + s.groups * size, 0.0f);
  for (int64_t output = 0; output < s.outputs; ++output) {
    const int64_t column = output % columns;
    float* out = packed + output / columns * size + column / kPanel * depth * kPanel + column % kPanel;
    for (int64_t channel = 0; channel < inner; ++channel)
      for (int64_t tap = 0; tap < taps; ++tap) out[(tap * inner + channel) * kPanel] = *weights++;
  }
}

}  // namespace

bool is_winograd_shape(const ConvolutionShape& s) {
  return s.kernel_height == 3 && s.kernel_width == 3 && s.stride_y == 1 && s.stride_x == 1 && s.dilation_y == 1 &&
         s.dilation_x == 1 && s.groups == 1;
}

ConvolutionAlgorithm float32_algorithm(const ConvolutionShape& s) {
  const bool enough = s.channels >= 16 && s.outputs >= 16 && s.out_height >= 4 && s.out_width >= 4;
  const bool pays = enough && (s.out_height * s.out_width >= 36 || s.channels * s.outputs <= 8192);
  return is_winograd_shape(s) && pays ? ConvolutionAlgorithm::kWinograd2 : ConvolutionAlgorithm::kDirect;
}

ConvolutionAlgorithm fast_algorithm(const ConvolutionShape& s) {
  const int64_t tiles = divide_up(s.out_height, 4) * divide_up(s.out_width, 4);
  const bool pays =
      float32_algorithm(s) == ConvolutionAlgorithm::kWinograd2 && tiles >= 4 && s.channels * s.outputs <= 4096 * tiles;
  return pays ? ConvolutionAlgorithm::kWinograd4 : float32_algorithm(s);
}

int64_t packed_convolution_size(const ConvolutionShape& s, ConvolutionAlgorithm algorithm) {
  if (algorithm == ConvolutionAlgorithm::kDirect)
    return s.groups * packed_size(s.kernel_height * s.kernel_width * s.channels / s.groups, s.outputs / s.groups);
  const int64_t tile = winograd_outputs(algorithm) + 2;
  return tile * tile * packed_size(s.channels, s.outputs);
}

void pack_convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const float* weights, float* packed) {
  switch (algorithm) {
    case ConvolutionAlgorithm::kDirect: return pack_direct(shape, weights, packed);
    case ConvolutionAlgorithm::kWinograd2: return pack_winograd<2>(shape, weights, packed);
    case ConvolutionAlgorithm::kWinograd4: return pack_winograd<4>(shape, weights, packed);
  }
}

ConvolutionChunk convolution_chunk(const ConvolutionShape& s, ConvolutionAlgorithm algorithm, int64_t samples,
                                   int64_t cache_bytes) {
  const int64_t budget = cache_bytes / 4;
  int64_t rows, most;  // of one sample, and in a chunk
  if (algorithm == ConvolutionAlgorithm::kDirect) {
    rows = s.out_height;
    // The input and the output of a chunk stay in the cache while panels of weights pass through it.
    const int64_t per_row = std::max<int64_t>(1, strip_size(s, rows) / rows + s.out_width * s.outputs);
    most = std::max(budget / 4 / per_row, divide_up(48, s.out_width));
    most = std::min(most, divide_up(kDirectPixels, s.out_width));
  } else {
    const int64_t outputs = winograd_outputs(algorithm), products = (outputs + 2) * (outputs + 2);
    const int64_t tiles = divide_up(s.out_width, outputs);
    rows = divide_up(s.out_height, outputs);
    const int64_t per_tile = products * (round_to_panel(s.channels) + std::min(round_to_panel(s.outputs), kGroup * kPanel));
    most = std::max<int64_t>(1, std::max(kFewTiles, budget * 3 / 4 / per_tile) / tiles);
  }
  if (most >= 2 * rows) return {std::min(samples, most / rows), rows};
  // Equal chunks.
  return {1, divide_up(rows, divide_up(rows, most))};
}

int64_t convolution_scratch_size(const ConvolutionShape& s, ConvolutionAlgorithm algorithm, int64_t samples, int64_t cache_bytes) {
  const ConvolutionChunk chunk = convolution_chunk(s, algorithm, samples, cache_bytes);
  if (algorithm == ConvolutionAlgorithm::kDirect) return round_to_panel(chunk.samples * strip_size(s, chunk.rows));
  return algorithm == ConvolutionAlgorithm::kWinograd4 ? WinogradScratch<4>(s, chunk).size : WinogradScratch<2>(s, chunk).size;
}

}  // namespace df::network
