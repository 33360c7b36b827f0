// Winograd's minimal filtering F(m x m, 3 x 3) (Lavin and Gray, 2016): a tile of m x m outputs from (m + 2)^2 products instead of 9
// m^2.
//
//   Y = A^T [ (G w G^T) * (B^T d B) ] A      * per element, summed over channels
//
// F(2,3) uses the points 0, 1, -1; F(4,3) also 2 and -2, which saves more and loses about two bits.
#pragma once

#include <cstdint>

#include "network/products/convolution.h"
#include "network/products/panel.h"

namespace df::network {

template <int kOutputs>
struct Winograd;

template <>
struct Winograd<2> {
  static constexpr int kTile = 4, kProducts = 16;
  static constexpr double kWeights[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};  // G
};

template <>
struct Winograd<4> {
  static constexpr int kTile = 6, kProducts = 36;
  static constexpr double kWeights[6][3] = {{1.0 / 4, 0, 0},
                                            {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                            {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                            {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                            {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                            {0, 0, 1}};
};

// The scratch of a call: a ring of rows of padded input, the transformed tiles of a chunk, their products with one group of panels,
// and row pointers.
template <int kOutputs>
struct WinogradScratch {
  using W = Winograd<kOutputs>;
  // Consecutive products begin one vector more than a multiple of a cache way apart, so that the 16 or 36 of one tile, which are
  // used together, do not compete for one set of the cache.
  static constexpr int64_t kSkew = 16;

  int64_t tiles_x, tiles_y;              // of one sample
  int64_t channels, columns;             // rounded to panels; columns of the widest group
  int64_t width;                         // pixels of a ring row
  int64_t tiles;                         // in a chunk, at most
  int64_t ring, inputs, products, size;  // where each begins, and the size of all, in floats

  DF_INLINE WinogradScratch(const ConvolutionShape& s, const ConvolutionChunk& chunk)
      : tiles_x((s.out_width + kOutputs - 1) / kOutputs),
        tiles_y((s.out_height + kOutputs - 1) / kOutputs),
        channels(round_to_panel(s.channels)),
        columns(round_to_panel(s.outputs < kGroup * kPanel ? s.outputs : kGroup * kPanel)),
        width(tiles_x * kOutputs + 2 > s.pad_left + s.width ? tiles_x * kOutputs + 2 : s.pad_left + s.width),
        tiles(chunk.samples * chunk.rows * tiles_x),
        ring(0),
        inputs(W::kTile * width * channels),
        products(inputs + W::kProducts * (tiles * channels + kSkew)),
        size(products + W::kProducts * (tiles * columns + kSkew)) {}
};

}  // namespace df::network
