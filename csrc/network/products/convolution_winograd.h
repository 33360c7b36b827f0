// Convolution by Winograd's F(2,3) or F(4,3), see winograd.h.
//
// Work goes by rows of tiles, over all samples. Rows of padded input are written into a ring that holds one row of tiles, and the
// tiles of a chunk are transformed. Then one group of output channels after the other is multiplied by the 16 or 36 matrices of
// weights and transformed back. So tiles and products stay in the second cache, while the weights pass through it once per chunk,
// in the order in which they lie in memory. Each product is one chain of
// fma over the channels, begun at zero; the bias is added behind the inverse transform, then come the stages.
//
// For sources that are compiled once per instruction set.
#pragma once

#include <cstring>

#include "network/products/block.h"
#include "network/products/convolution.h"
#include "network/products/image.h"
#include "network/products/source.h"
#include "network/products/winograd.h"

namespace df::network {
namespace {

constexpr int64_t kMaxTiles = 1024;  // that are multiplied together
constexpr int64_t kMaxPieces = 64;   // of a chain
constexpr int64_t kPartTiles = 32;   // of a part, at least, if it is one of rows

// B^T d
template <int kOutputs>
DF_INLINE void transform_input(const F* d, F* out) {
  if constexpr (kOutputs == 2) {
    out[0] = Vector::sub(d[0], d[2]);
    out[1] = Vector::add(d[1], d[2]);
    out[2] = Vector::sub(d[2], d[1]);
    out[3] = Vector::sub(d[1], d[3]);
  } else {
    const F two = Vector::set(2.0f), four = Vector::set(4.0f), minus_four = Vector::set(-4.0f), minus_five = Vector::set(-5.0f);
    out[0] = Vector::fma(four, d[0], Vector::fma(minus_five, d[2], d[4]));
    const F even = Vector::fma(minus_four, d[2], d[4]), odd = Vector::fma(minus_four, d[1], d[3]);
    out[1] = Vector::add(even, odd);
    out[2] = Vector::sub(even, odd);
    const F outer = Vector::sub(d[4], d[2]), inner = Vector::mul_f(two, Vector::sub(d[3], d[1]));
    out[3] = Vector::add(outer, inner);
    out[4] = Vector::sub(outer, inner);
    out[5] = Vector::fma(four, d[1], Vector::fma(minus_five, d[3], d[5]));
  }
}

// A^T m
template <int kOutputs>
DF_INLINE void transform_output(const F* m, F* out) {
  if constexpr (kOutputs == 2) {
    out[0] = Vector::add(m[0], Vector::add(m[1], m[2]));
    out[1] = Vector::sub(Vector::sub(m[1], m[2]), m[3]);
  } else {
    const F two = Vector::set(2.0f), four = Vector::set(4.0f), eight = Vector::set(8.0f);
    const F a = Vector::add(m[1], m[2]), b = Vector::sub(m[1], m[2]), c = Vector::add(m[3], m[4]), d = Vector::sub(m[3], m[4]);
    out[0] = Vector::add(m[0], Vector::add(a, c));
    out[1] = Vector::fma(two, d, b);
    out[2] = Vector::fma(four, c, a);
    out[3] = Vector::add(Vector::fma(eight, d, b), m[5]);
  }
}

// One row of tiles: from the ring's rows to matrices of (tile, channel), `matrix` floats apart. Pixels are `pitch` floats apart.
template <int kOutputs>
void transform_tiles(const float* const* rows, int64_t tiles, int64_t channels, int64_t pitch, float* out, int64_t matrix) {
  constexpr int kTile = kOutputs + 2;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t left = tile * kOutputs * pitch;
    for (int64_t c = 0; c < channels; c += kWidth) {  // lanes behind the last channel are never read
      F half[kTile][kTile];
      DF_UNROLL for (int x = 0; x < kTile; ++x) {
        F d[kTile], e[kTile];
        DF_UNROLL for (int y = 0; y < kTile; ++y) d[y] = Vector::load(rows[y] + left + x * pitch + c);
        transform_input<kOutputs>(d, e);
        DF_UNROLL for (int y = 0; y < kTile; ++y) half[y][x] = e[y];
      }
      DF_UNROLL for (int y = 0; y < kTile; ++y) {
        F e[kTile];
        transform_input<kOutputs>(half[y], e);
        DF_UNROLL for (int x = 0; x < kTile; ++x) Vector::store(out + (y * kTile + x) * matrix + tile * pitch + c, e[x]);
      }
    }
  }
}

// One row of tiles back to output rows from y on: output channels [first, last), which are the columns of a group.
template <int kOutputs>
void finish_tiles(const ConvolutionShape& s, const float* in, int64_t matrix, int64_t pitch, int64_t tiles,
                  const ImageTarget& target, int64_t sample, int64_t y, int64_t first, int64_t last) {
  constexpr int kTile = kOutputs + 2;
  const int high = static_cast<int>(s.out_height - y < kOutputs ? s.out_height - y : kOutputs);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t x = tile * kOutputs;
    const int wide = static_cast<int>(s.out_width - x < kOutputs ? s.out_width - x : kOutputs);
    for (int64_t next = first; next < last; next += kWidth) {
      // The last vector overlaps the one before it rather than being cut.
      const int64_t c = next + kWidth > last && last - first > kWidth ? last - kWidth : next;
      const int lanes = static_cast<int>(last - c < kWidth ? last - c : kWidth);
      F half[kOutputs][kTile];
      DF_UNROLL for (int i = 0; i < kTile; ++i) {
        F m[kTile], e[kOutputs];
        DF_UNROLL for (int j = 0; j < kTile; ++j) m[j] = Vector::load(in + (j * kTile + i) * matrix + tile * pitch + c - first);
        transform_output<kOutputs>(m, e);
        DF_UNROLL for (int j = 0; j < kOutputs; ++j) half[j][i] = e[j];
      }
      const auto store = [&]<bool kWhole>() __attribute__((always_inline)) {
        const auto load = [&](const float* p) __attribute__((always_inline)) {
          return kWhole ? Vector::load(p) : load_part<DType::kFloat32>(p, 0, 0, lanes);
        };
        const F bias = target.bias != nullptr ? load(target.bias + c) : Vector::set(0.0f);
        DF_UNROLL for (int j = 0; j < kOutputs; ++j) {
          if (j >= high) break;
          F e[kOutputs];
          transform_output<kOutputs>(half[j], e);
          DF_UNROLL for (int i = 0; i < kOutputs; ++i) {
            if (i >= wide) break;
            F value = Vector::add(e[i], bias);
            for (int n = 0; n < target.stage_count; ++n) {
              const F operand = load(target.stages[n].operand.at(sample, y + j, x + i) + c);
              value = target.stages[n].multiply ? Vector::mul_f(value, operand) : Vector::add(value, operand);
            }
            float* out = target.pixels.at(sample, y + j, x + i) + c;
            if constexpr (kWhole) {
              Vector::store(out, value);
            } else {
              store_part<DType::kFloat32>(out, 0, 0, lanes, value);
            }
          }
        }
      };
      if (lanes == kWidth) {
        store.template operator()<true>();
      } else {
        store.template operator()<false>();
      }
    }
  }
}

// The tiles of a chunk times one group of the weights. Rows of the tiles and of the result are pitches apart, products matrices.
template <int kProducts>
void multiply_tiles(const ConvolutionShape& s, const float* packed, const float* in, int64_t in_matrix, int64_t in_pitch,
                    int64_t tiles, float* result, int64_t out_matrix, int64_t out_pitch, int64_t outputs) {
  const int64_t whole = piece_of(s.channels), piece = s.channels / whole <= kMaxPieces ? whole : s.channels;
  int64_t taps[kMaxPieces];
  for (int64_t k = 0; k < s.channels / piece; ++k) taps[k] = k * piece;
  const int64_t columns = (outputs + kHalf - 1) / kHalf * kHalf;  // whole vectors: there is room for them
  for (int64_t begin = 0; begin < tiles; begin += kMaxTiles) {
    const int64_t count = tiles - begin < kMaxTiles ? tiles - begin : kMaxTiles;
    const float* a[kMaxTiles];
    float* out[kMaxTiles];
    const RowProduct product{taps, 0, s.channels / piece, piece, 0, count, s.channels * kPanel, nullptr, 0};
    for (int i = 0; i < kProducts; ++i) {
      for (int64_t t = 0; t < count; ++t) {
        a[t] = in + i * in_matrix + (begin + t) * in_pitch;
        out[t] = result + i * out_matrix + (begin + t) * out_pitch;
      }
      multiply_rows(&product, 1, a, packed + i * packed_size(s.channels, outputs), columns, nullptr, out);
    }
  }
}

template <int kOutputs>
void convolution_winograd(const ConvolutionShape& s, const float* packed, const ImageSource& source, const ImageTarget& target,
                          int64_t samples, const ConvolutionPart& part, int64_t cache_bytes, float* scratch) {
  constexpr int kTile = kOutputs + 2, kProducts = kTile * kTile;
  constexpr auto kAlgorithm = kOutputs == 4 ? ConvolutionAlgorithm::kWinograd4 : ConvolutionAlgorithm::kWinograd2;
  const ConvolutionChunk chunk = convolution_chunk(s, kAlgorithm, samples, cache_bytes);
  const WinogradScratch<kOutputs> parts(s, chunk);
  const int64_t ring_row = parts.width * parts.channels;
  float *ring = scratch + parts.ring, *inputs = scratch + parts.inputs, *products = scratch + parts.products;
  clear_sides(s, ring, kTile, ring_row, parts.channels, parts.width);

  // A part is of rows if that leaves enough tiles for each, else of groups; then the input is transformed for each.
  const int64_t all_rows = samples * parts.tiles_y, groups = (panels_of(s.outputs) + kGroup - 1) / kGroup;
  const bool by_rows = groups < part.count || target.finish != nullptr || all_rows * parts.tiles_x >= kPartTiles * part.count;
  const Range own_rows = by_rows ? range_of(part, all_rows) : Range{0, all_rows};
  const Range own_groups = by_rows ? Range{0, groups} : range_of(part, groups);

  const int64_t rows = own_rows.end, chunk_rows = chunk.samples * chunk.rows;
  int64_t slot = 0;  // of the ring, of the first row of the current tiles
  for (int64_t first = own_rows.begin; first < rows;) {
    // Chunks of several samples are whole samples; others end with their sample.
    int64_t last = first + chunk_rows;
    if (chunk.samples == 1 && last > (first / parts.tiles_y + 1) * parts.tiles_y)
      last = (first / parts.tiles_y + 1) * parts.tiles_y;
    if (last > rows) last = rows;
    const int64_t tiles = (last - first) * parts.tiles_x;
    const int64_t in_matrix = tiles * parts.channels + parts.kSkew, out_matrix = tiles * parts.columns + parts.kSkew;

    for (int64_t row = first; row < last; ++row) {
      const int64_t sample = row / parts.tiles_y, tile_y = row % parts.tiles_y;
      // The last two rows of the tiles above are the first two of these.
      const bool anew = tile_y == 0 || row == own_rows.begin;
      slot = anew ? 0 : (slot + kOutputs) % kTile;
      float* lines[kTile];
      for (int y = 0; y < kTile; ++y) lines[y] = ring + (slot + y) % kTile * ring_row;
      for (int y = anew ? 0 : 2; y < kTile; ++y) {
        const int64_t from = tile_y * kOutputs - s.pad_top + y;
        if (from >= 0 && from < s.height) {
          write_rows(source, s, sample, from, from + 1, lines[y] + s.pad_left * parts.channels, ring_row, parts.channels);
        } else {
          std::memset(lines[y] + s.pad_left * parts.channels, 0, static_cast<size_t>(s.width * parts.channels) * sizeof(float));
        }
      }
      transform_tiles<kOutputs>(lines, parts.tiles_x, s.channels, parts.channels,
                                inputs + (row - first) * parts.tiles_x * parts.channels, in_matrix);
    }

    for (int64_t group = own_groups.begin; group < own_groups.end; ++group) {
      const int64_t panel = group * kGroup, begin = panel * kPanel,
                    end = begin + parts.columns < s.outputs ? begin + parts.columns : s.outputs;
      multiply_tiles<kProducts>(s, packed + panel * kProducts * s.channels * kPanel, inputs, in_matrix, parts.channels, tiles,
                                products, out_matrix, parts.columns, end - begin);
      for (int64_t row = first; row < last; ++row)
        finish_tiles<kOutputs>(s, products + (row - first) * parts.tiles_x * parts.columns, out_matrix, parts.columns,
                               parts.tiles_x, target, row / parts.tiles_y, row % parts.tiles_y * kOutputs, begin, end);
    }
    for (int64_t row = first; row < last && target.finish != nullptr; ++row) {
      const int64_t y = row % parts.tiles_y * kOutputs;
      target.finish(target.context, row / parts.tiles_y, y, y + kOutputs < s.out_height ? y + kOutputs : s.out_height);
    }
    first = last;
  }
}

}  // namespace
}  // namespace df::network
