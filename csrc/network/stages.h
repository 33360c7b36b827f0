// Stages on rows of channels: what an operation does to its input while reading it, and to its result while writing it.
//
//   compute_moments(stages, rows, row, moments, work)       the norms of one row of the network
//   read_points(line, first, count, out, stride)            points of the view, after its stages
//   write_points(line, first, count, values, stride)        stages on values, then into the view
//
// A norm is fma(x - mean, factor, offset), with the mean in two floats: offset = shift - (mean - float(mean)) * factor, so that
// nothing is lost where the mean is large against the deviation. Moments are taken in two passes. By channel, a channel's sum over
// kTilePoints points is a chain in float32; these sums are added in float64, channels in order. By point, sixteen lanes are summed
// in float32 (element i in lane i mod 16) and added in order. Other forms sum in float64.
//
// For sources that are compiled once per instruction set.

#pragma once

#include <cmath>
#include <cstring>

#include "network/functions.h"
#include "network/operation.h"

// Not inlined where it is called: each holds many loops.
#define DF_NOINLINE __attribute__((noinline)) inline

namespace df::network {
namespace {

// ---- vectors ------------------------------------------------------------------------------------

template <bool kWhole>
DF_INLINE F load(const float* from, int count) {
  return kWhole ? V::load(from) : load_part<DType::kFloat32>(from, 0, 0, count);
}
template <bool kWhole>
DF_INLINE void store(float* to, int count, F value) {
  if constexpr (kWhole) {
    V::store(to, value);
  } else {
    store_part<DType::kFloat32>(to, 0, 0, count, value);
  }
}

// fn.template operator()<whole>(i, count) for each vector of n elements.
template <class Fn>
DF_INLINE void each_vector(int64_t n, Fn fn) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) fn.template operator()<true>(i, kWidth);
  if constexpr (kWidth > 1)
    if (i < n) fn.template operator()<false>(i, static_cast<int>(n - i));
}

// One point of an operand.
struct Operand {
  const float* base;
  const Steps* inner;
  bool contiguous, repeated;

  template <bool kWhole>
  DF_INLINE F get(int64_t i, int count) const {
    if (contiguous) return load<kWhole>(base + i, count);
    if (repeated) return V::set(*base);
    alignas(64) float values[kWidth] = {};
    for (int n = 0; n < count; ++n) values[n] = base[inner->at(i + n)];
    return V::load(values);
  }
};

DF_INLINE Operand operand_at(const Access& access, const float* row, int64_t point) {
  return {row + access.offset + access.points.at(point), &access.inner, access.contiguous(), access.repeated()};
}

// ---- stages of one point ------------------------------------------------------------------------

template <Unary kFunction>
DF_INLINE void unary_loop(const float* x, float* y, int64_t n, F parameter) {
  each_vector(n, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
    store<kWhole>(y + i, count, apply_unary(kFunction, load<kWhole>(x + i, count), parameter));
  });
}

DF_NOINLINE void run_unary(Unary function, float parameter, const float* x, float* y, int64_t n) {
  const F p = V::set(parameter);
  switch (function) {
    // clang-format off
#define DF_CASE(name) case Unary::name: return unary_loop<Unary::name>(x, y, n, p);
    DF_CASE(kAbs) DF_CASE(kCeil) DF_CASE(kCos) DF_CASE(kElu) DF_CASE(kErf) DF_CASE(kExp) DF_CASE(kFloor) DF_CASE(kGelu)
    DF_CASE(kGeluTanh) DF_CASE(kHardSigmoid) DF_CASE(kLeakyRelu) DF_CASE(kLog) DF_CASE(kMish) DF_CASE(kNegate) DF_CASE(kReciprocal)
    DF_CASE(kRelu) DF_CASE(kRound) DF_CASE(kRsqrt) DF_CASE(kSigmoid) DF_CASE(kSilu) DF_CASE(kSin) DF_CASE(kSoftplus) DF_CASE(kSqrt)
    DF_CASE(kTanh)
#undef DF_CASE
    case Unary::kCount: break;
    // clang-format on
  }
}

template <Binary kFunction>
DF_INLINE void binary_loop(const float* x, const Operand& operand, float* y, int64_t n) {
  each_vector(n, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
    store<kWhole>(y + i, count, apply_binary(kFunction, load<kWhole>(x + i, count), operand.get<kWhole>(i, count)));
  });
}

DF_NOINLINE void run_binary(Binary function, const Operand& operand, const float* x, float* y, int64_t n) {
  switch (function) {
    // clang-format off
#define DF_CASE(name) case Binary::name: return binary_loop<Binary::name>(x, operand, y, n);
    DF_CASE(kAdd) DF_CASE(kSubtract) DF_CASE(kReverseSubtract) DF_CASE(kMultiply) DF_CASE(kDivide) DF_CASE(kReverseDivide)
    DF_CASE(kPower) DF_CASE(kMaximum) DF_CASE(kMinimum)
#undef DF_CASE
    case Binary::kCount: break;
    // clang-format on
  }
}

// (x - mean) * factor + offset with tables by channel, and an activation: `points` points of n channels.
template <Unary kActivation>
DF_INLINE void norm_by_channel(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t points, int64_t n,
                               const float* table, int64_t size) {
  const auto column = [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
    const F mean = V::load(table + i), factor = V::load(table + size + i), offset = V::load(table + 2 * size + i);
    for (int64_t p = 0; p < points; ++p) {
      const F normed = V::fma(V::sub(load<kWhole>(x + p * x_stride + i, count), mean), factor, offset);
      store<kWhole>(y + p * y_stride + i, count, apply_unary(kActivation, normed, normed));
    }
  };
  if (x == y || n < kWidth) return each_vector(n, column);
  // The last vector overlaps the one before it rather than being cut.
  for (int64_t i = 0; i < n; i += kWidth) column.template operator()<true>(i + kWidth > n ? n - kWidth : i, kWidth);
}

DF_NOINLINE void run_norm_by_channel(const PreparedStage& s, const float* moments, const float* x, int64_t x_stride, float* y,
                                     int64_t y_stride, int64_t points, int64_t n) {
  const float* table = moments + s.table;
  const int64_t size = s.table_size;
  switch (s.activated ? s.unary : Unary::kCount) {
    // clang-format off
#define DF_CASE(name) case Unary::name: return norm_by_channel<Unary::name>(x, x_stride, y, y_stride, points, n, table, size);
    DF_CASE(kSilu) DF_CASE(kGelu) DF_CASE(kGeluTanh) DF_CASE(kMish) DF_CASE(kRelu)
#undef DF_CASE
    default: return norm_by_channel<Unary::kCount>(x, x_stride, y, y_stride, points, n, table, size);
    // clang-format on
  }
}

// The same with one moment for all channels, then a scale and a shift by channel.
template <Unary kActivation>
DF_INLINE void norm_by_point(const float* x, float* y, int64_t n, const float* table, int64_t size, const Operand* scale,
                             const Operand* shift) {
  const F mean = V::set(table[0]), factor = V::set(table[size]), offset = V::set(table[2 * size]);
  each_vector(n, [&]<bool kWhole>(int64_t i, int count) __attribute__((always_inline)) {
    F value = V::fma(V::sub(load<kWhole>(x + i, count), mean), factor, offset);
    if (scale != nullptr && shift != nullptr) {
      value = V::fma(value, scale->get<kWhole>(i, count), shift->get<kWhole>(i, count));
    } else if (scale != nullptr) {
      value = V::mul_f(value, scale->get<kWhole>(i, count));
    } else if (shift != nullptr) {
      value = V::add(value, shift->get<kWhole>(i, count));
    }
    store<kWhole>(y + i, count, apply_unary(kActivation, value, value));
  });
}

// A row of the network on which stages run.
struct Line {
  const Stages& stages;
  const Rows& rows;
  int64_t row;
  const float* moments;
};

DF_NOINLINE void run_norm(const PreparedStage& s, const Line& line, int64_t point, const float* x, float* y, int64_t n) {
  if (s.form == PreparedStage::kByChannel) return run_norm_by_channel(s, line.moments, x, 0, y, 0, 1, n);
  const float* table = line.moments + s.table;
  const int64_t size = s.table_size;
  if (s.form == PreparedStage::kByPoint) {
    table += s.point_moment.at(point);
    const Operand scale = s.scaled ? operand_at(s.scale, line.rows.read(s.scale.buffer, line.row), point) : Operand{};
    const Operand shift = s.shifted ? operand_at(s.shift, line.rows.read(s.shift.buffer, line.row), point) : Operand{};
    const Operand *a = s.scaled ? &scale : nullptr, *b = s.shifted ? &shift : nullptr;
    switch (s.activated ? s.unary : Unary::kCount) {
      case Unary::kSilu: return norm_by_point<Unary::kSilu>(x, y, n, table, size, a, b);
      case Unary::kGelu: return norm_by_point<Unary::kGelu>(x, y, n, table, size, a, b);
      case Unary::kGeluTanh: return norm_by_point<Unary::kGeluTanh>(x, y, n, table, size, a, b);
      case Unary::kMish: return norm_by_point<Unary::kMish>(x, y, n, table, size, a, b);
      case Unary::kRelu: return norm_by_point<Unary::kRelu>(x, y, n, table, size, a, b);
      default: return norm_by_point<Unary::kCount>(x, y, n, table, size, a, b);
    }
  }
  table += s.point_moment.at(point);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t m = s.inner_moment.at(i);
    y[i] = __builtin_fmaf(x[i] - table[m], table[size + m], table[2 * size + m]);
  }
}

// Stages [0, end) of one point, from x to y; they may be the same.
DF_INLINE void run_stages(const Line& line, size_t end, int64_t point, const float* x, float* y) {
  const int64_t n = line.stages.inner;
  const PreparedStage* list = line.stages.list.data();
  for (size_t k = 0; k < end; ++k) {
    const PreparedStage& s = list[k];
    switch (s.type) {
      case Stage::kUnary: run_unary(s.unary, s.number, x, y, n); break;
      case Stage::kNumber: run_binary(s.binary, Operand{&s.number, nullptr, false, true}, x, y, n); break;
      case Stage::kOperand:
        run_binary(s.binary, operand_at(s.operand, line.rows.read(s.operand.buffer, line.row), point), x, y, n);
        break;
      case Stage::kNorm: run_norm(s, line, point, x, y, n); break;
    }
    x = y;
  }
}

// ---- reading and writing ------------------------------------------------------------------------

// Points [first, first + count) of the view after stages [0, end): channel i of a point at out[... * stride + i].
DF_NOINLINE void read_points(const Line& line, int64_t first, int64_t count, float* out, int64_t stride, size_t end) {
  const Access& view = line.stages.view;
  const float* base = line.rows.read(view.buffer, line.row) + view.offset;
  const int64_t n = line.stages.inner;
  const bool contiguous = view.contiguous();
  const PreparedStage* stages = line.stages.list.data();
  // The usual prologue, for all points at once.
  if (end == 1 && stages->type == Stage::kNorm && stages->form == PreparedStage::kByChannel && contiguous &&
      view.points.table.empty())
    return run_norm_by_channel(*stages, line.moments, base + first * view.points.stride, view.points.stride, out, stride, count, n);
  for (int64_t p = first; p < first + count; ++p, out += stride) {
    const float* x = base + view.points.at(p);
    if (!contiguous) {
      for (int64_t i = 0; i < n; ++i) out[i] = x[view.inner.at(i)];
      x = out;
    } else if (end == 0) {
      std::memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
    }
    run_stages(line, end, p, x, out);
  }
}
DF_INLINE void read_points(const Line& line, int64_t first, int64_t count, float* out, int64_t stride) {
  read_points(line, first, count, out, stride, line.stages.list.size());
}

// Runs the stages on points of values, in place, and writes them to the view.
DF_NOINLINE void write_points(const Line& line, int64_t first, int64_t count, float* values, int64_t stride) {
  const Access& view = line.stages.view;
  float* base = line.rows.write(view.buffer, line.row) + view.offset;
  const int64_t n = line.stages.inner;
  const bool contiguous = view.contiguous();
  for (int64_t p = first; p < first + count; ++p, values += stride) {
    float* y = base + view.points.at(p);
    run_stages(line, line.stages.list.size(), p, values, values);
    if (!contiguous) {
      for (int64_t i = 0; i < n; ++i) y[view.inner.at(i)] = values[i];
    } else if (y != values) {
      std::memcpy(y, values, static_cast<size_t>(n) * sizeof(float));
    }
  }
}

// ---- moments ------------------------------------------------------------------------------------

// Sixteen sums, whatever the width of a vector: element i goes to lane i mod 16.
constexpr int kLanes = 16;

// The sum of (x - shift) or (x - shift)^2 over n contiguous elements.
template <bool kSquared>
DF_INLINE double lane_sum(const float* x, int64_t n, float shift) {
  constexpr int kVectors = kLanes / kWidth;
  const F k = V::set(shift);
  F sums[kVectors];
  for (F& sum : sums) sum = V::set(0.0f);
  const auto add = [&](const float* from) __attribute__((always_inline)) {
    for (int v = 0; v < kVectors; ++v) {
      const F d = V::sub(V::load(from + v * kWidth), k);
      sums[v] = kSquared ? V::fma(d, d, sums[v]) : V::add(sums[v], d);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(x + i);
  if (i < n) {
    alignas(64) float rest[kLanes];
    for (int j = 0; j < kLanes; ++j) rest[j] = i + j < n ? x[i + j] : shift;
    add(rest);
  }
  alignas(64) float lanes[kLanes];
  for (int v = 0; v < kVectors; ++v) V::store(lanes + v * kWidth, sums[v]);
  double total = 0;
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}

// Adds the sums over `count` points of (x - shift) or (x - shift)^2 to the sums of the channels.
template <bool kSquared>
inline void channel_sums(const float* x, int64_t stride, int64_t count, int64_t n, const float* shift, double* sums) {
  const auto columns = [&]<bool kWhole, int kVectors>(int64_t c, int valid) __attribute__((always_inline)) {
    F k[kVectors], sum[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      k[v] = V::load(shift + c + v * kWidth);
      sum[v] = V::set(0.0f);
    }
    const float* at = x + c;
    for (int64_t p = 0; p < count; ++p, at += stride)
      for (int v = 0; v < kVectors; ++v) {
        const F d = V::sub(load<kWhole>(at + v * kWidth, valid), k[v]);
        sum[v] = kSquared ? V::fma(d, d, sum[v]) : V::add(sum[v], d);
      }
    alignas(64) float lanes[kVectors * kWidth];
    for (int v = 0; v < kVectors; ++v) V::store(lanes + v * kWidth, sum[v]);
    for (int j = 0; j < (kWhole ? kVectors * kWidth : valid); ++j) sums[c + j] += static_cast<double>(lanes[j]);
  };
  int64_t c = 0;
  for (; c + 4 * kWidth <= n; c += 4 * kWidth) columns.template operator()<true, 4>(c, 0);
  for (; c + kWidth <= n; c += kWidth) columns.template operator()<true, 1>(c, 0);
  if (c < n) columns.template operator()<false, 1>(c, static_cast<int>(n - c));
}

// The mean in two floats and the factor of one moment.
struct Moment {
  float mean;
  double rest, factor;
};

DF_INLINE double factor_of(const PreparedStage& s, double squares) {
  const double size = static_cast<double>(s.moment_size);
  if (s.norm == NormKind::kL2) {
    const double length = std::sqrt(squares);
    return 1.0 / (length < s.epsilon ? s.epsilon : length);  // NaN stays
  }
  return 1.0 / std::sqrt(squares / size + s.epsilon);
}

DF_INLINE float element(const Access& access, const float* row, int64_t i) { return row[access.offset + access.inner.at(i)]; }

// fn(tile, stride, count) for tiles of points after stages [0, end).
template <class Fn>
DF_INLINE void each_tile(const Line& line, size_t end, float* tile, Fn fn) {
  const Stages& stages = line.stages;
  const bool direct = end == 0 && stages.view.contiguous() && stages.view.points.table.empty();
  const float* base = line.rows.read(stages.view.buffer, line.row) + stages.view.offset;
  for (int64_t p = 0; p < stages.points; p += kTilePoints) {
    const int64_t count = stages.points - p < kTilePoints ? stages.points - p : kTilePoints;
    if (direct) {
      fn(base + p * stages.view.points.stride, stages.view.points.stride, count, p);
    } else {
      read_points(line, p, count, tile, round_up(stages.inner), end);
      fn(tile, round_up(stages.inner), count, p);
    }
  }
}

DF_NOINLINE void moments_by_channel(const Line& line, size_t k, float* moments, float* work) {
  const PreparedStage& s = line.stages.list.data()[k];
  const int64_t n = line.stages.inner;
  float *mean = moments + s.table, *factor = mean + s.table_size, *offset = factor + s.table_size;
  double *sums = reinterpret_cast<double*>(work), *totals = sums + n;
  float* tile = work + round_up(4 * n);
  std::memset(mean, 0, static_cast<size_t>(3 * s.table_size) * sizeof(float));
  const auto each_channel = [&](auto fn) __attribute__((always_inline)) {
    for (int64_t m = 0; m < s.moments; ++m) totals[m] = 0;
    for (int64_t i = 0; i < n; ++i) fn(i, s.inner_moment.at(i));
  };
  const double size = static_cast<double>(s.moment_size);
  if (s.norm == NormKind::kStandard) {
    // Deviations from the first point, which is near the mean.
    read_points(line, 0, 1, mean, 0, k);
    std::memset(sums, 0, static_cast<size_t>(n) * sizeof(double));
    each_tile(line, k, tile, [&](const float* x, int64_t stride, int64_t count, int64_t) {
      channel_sums<false>(x, stride, count, n, mean, sums);
    });
    const auto points = static_cast<double>(line.stages.points);
    each_channel([&](int64_t i, int64_t m) { totals[m] += sums[i] + static_cast<double>(mean[i]) * points; });
    for (int64_t i = 0; i < n; ++i) mean[i] = static_cast<float>(totals[s.inner_moment.at(i)] / size);
    // What the float32 mean lacks, for now in `factor`.
    for (int64_t i = 0; i < n; ++i)
      factor[i] = static_cast<float>(totals[s.inner_moment.at(i)] / size - static_cast<double>(mean[i]));
  }
  std::memset(sums, 0, static_cast<size_t>(n) * sizeof(double));
  each_tile(line, k, tile,
            [&](const float* x, int64_t stride, int64_t count, int64_t) { channel_sums<true>(x, stride, count, n, mean, sums); });
  each_channel([&](int64_t i, int64_t m) { totals[m] += sums[i]; });
  const float* scale = s.scaled ? line.rows.read(s.scale.buffer, line.row) : nullptr;
  const float* shift = s.shifted ? line.rows.read(s.shift.buffer, line.row) : nullptr;
  for (int64_t i = 0; i < n; ++i) {
    const double rest = static_cast<double>(factor[i]);
    double f = factor_of(s, totals[s.inner_moment.at(i)] - rest * rest * size);
    if (s.scaled) f *= static_cast<double>(element(s.scale, scale, i));
    factor[i] = static_cast<float>(f);
    offset[i] = static_cast<float>((s.shifted ? static_cast<double>(element(s.shift, shift, i)) : 0.0) - rest * f);
  }
}

DF_NOINLINE void moments_by_point(const Line& line, size_t k, float* moments, float* work) {
  const PreparedStage& s = line.stages.list.data()[k];
  const int64_t n = line.stages.inner;
  float *mean = moments + s.table, *factor = mean + s.table_size, *offset = factor + s.table_size;
  const double size = static_cast<double>(s.moment_size);
  each_tile(line, k, work, [&](const float* tile, int64_t stride, int64_t count, int64_t first) {
    for (int64_t p = 0; p < count; ++p) {
      const float* x = tile + p * stride;
      const int64_t m = s.point_moment.at(first + p);
      float centre = 0;
      double rest = 0;
      if (s.norm == NormKind::kStandard) {
        const double whole = static_cast<double>(x[0]) + lane_sum<false>(x, n, x[0]) / size;
        centre = static_cast<float>(whole);
        rest = whole - static_cast<double>(centre);
      }
      const double f = factor_of(s, lane_sum<true>(x, n, centre) - rest * rest * size);
      mean[m] = centre;
      factor[m] = static_cast<float>(f);
      offset[m] = static_cast<float>(-rest * f);
    }
  });
}

DF_NOINLINE void moments_general(const Line& line, size_t k, float* moments, float* work) {
  const PreparedStage& s = line.stages.list.data()[k];
  const int64_t n = line.stages.inner;
  float *mean = moments + s.table, *factor = mean + s.table_size, *offset = factor + s.table_size;
  double* totals = reinterpret_cast<double*>(work);
  float* tile = work + round_up(2 * s.moments);
  const double size = static_cast<double>(s.moment_size);
  const auto sum = [&](auto term) __attribute__((always_inline)) {
    std::memset(totals, 0, static_cast<size_t>(s.moments) * sizeof(double));
    each_tile(line, k, tile, [&](const float* x, int64_t stride, int64_t count, int64_t first) {
      for (int64_t p = 0; p < count; ++p)
        for (int64_t i = 0; i < n; ++i) {
          const int64_t m = s.point_moment.at(first + p) + s.inner_moment.at(i);
          totals[m] += term(static_cast<double>(x[p * stride + i]), m);
        }
    });
  };
  std::memset(mean, 0, static_cast<size_t>(3 * s.table_size) * sizeof(float));
  if (s.norm == NormKind::kStandard) {
    sum([](double x, int64_t) { return x; });
    for (int64_t m = 0; m < s.moments; ++m) {
      mean[m] = static_cast<float>(totals[m] / size);
      factor[m] = static_cast<float>(totals[m] / size - static_cast<double>(mean[m]));
    }
  }
  sum([&](double x, int64_t m) {
    const double d = x - static_cast<double>(mean[m]);
    return d * d;
  });
  for (int64_t m = 0; m < s.moments; ++m) {
    const double rest = static_cast<double>(factor[m]), f = factor_of(s, totals[m] - rest * rest * size);
    factor[m] = static_cast<float>(f);
    offset[m] = static_cast<float>(-rest * f);
  }
}

// The norms of one row, into stages.moments floats; `work` has stages.work floats.
DF_NOINLINE void compute_moments(const Stages& stages, const Rows& rows, int64_t row, float* moments, float* work) {
  const Line line{stages, rows, row, moments};
  for (size_t k = 0; k < stages.list.size(); ++k) {
    const PreparedStage& s = stages.list.data()[k];
    if (s.type != Stage::kNorm) continue;
    switch (s.form) {
      case PreparedStage::kByChannel: moments_by_channel(line, k, moments, work); break;
      case PreparedStage::kByPoint: moments_by_point(line, k, moments, work); break;
      case PreparedStage::kGeneral: moments_general(line, k, moments, work); break;
    }
  }
}

}  // namespace
}  // namespace df::network
