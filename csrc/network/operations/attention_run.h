// Attention in blocks of sixteen queries, one per lane. For a query, a score is a chain over the depth, the sum and each output are
// chains over the keys, all ascending: nothing depends on the width of a vector.
#pragma once

#include "network/operations/prepared.h"
#include "network/stages.h"
#include "threads/pool.h"

namespace df::network {
namespace {

constexpr int kQueries = 16;
constexpr int kQueryVectors = kQueries / kWidth;
// Keys, or columns of the values, at once: enough chains to hide the latency of fma.
constexpr int kAtOnce = kQueryVectors >= 4 ? 2 : kQueryVectors == 2 ? 4 : 8;

// Rows of k or v: as they are, or copied.
struct KeyRows {
  const float* data;
  const Steps* rows;  // null: `stride` apart
  int64_t stride;
  DF_INLINE const float* at(int64_t j) const { return data + (rows == nullptr ? j * stride : rows->at(j)); }
};

inline KeyRows key_rows(const Matrices& m, const float* row, int64_t lead, float* copy) {
  const float* base = row + m.offset + m.lead.at(lead);
  if (m.contiguous()) return {base, m.rows.table.empty() ? nullptr : &m.rows, m.rows.stride};
  const int64_t n = m.columns.count;
  for (int64_t j = 0; j < m.rows.count; ++j)
    for (int64_t i = 0; i < n; ++i) copy[j * n + i] = base[m.rows.at(j) + m.columns.at(i)];
  return {copy, nullptr, n};
}

// scores[j][lane] = scale * (chain over d of q[d][lane] k[j][d]) for kCount keys from j on.
template <int kCount>
DF_INLINE void score_keys(const float* q, const KeyRows& keys, int64_t j, int64_t depth, F scale, float* scores) {
  F sums[kCount][kQueryVectors];
  const float* k[kCount];
  for (int c = 0; c < kCount; ++c) {
    k[c] = keys.at(j + c);
    for (F& sum : sums[c]) sum = V::set(0.0f);
  }
  for (int64_t d = 0; d < depth; ++d) {
    F lanes[kQueryVectors];
    for (int v = 0; v < kQueryVectors; ++v) lanes[v] = V::load(q + d * kQueries + v * kWidth);
    for (int c = 0; c < kCount; ++c) {
      const F x = V::set(k[c][d]);
      for (int v = 0; v < kQueryVectors; ++v) sums[c][v] = V::fma(lanes[v], x, sums[c][v]);
    }
  }
  for (int c = 0; c < kCount; ++c)
    for (int v = 0; v < kQueryVectors; ++v) V::store(scores + (j + c) * kQueries + v * kWidth, V::mul_f(sums[c][v], scale));
}

// out[e][lane] = factor * (chain over j of p[j][lane] v[j][e]) for kCount columns from e on.
template <int kCount>
DF_INLINE void mix_values(const float* p, const KeyRows& values, int64_t keys, int64_t e, const F* factor, float* out) {
  F sums[kCount][kQueryVectors];
  for (int c = 0; c < kCount; ++c)
    for (F& sum : sums[c]) sum = V::set(0.0f);
  for (int64_t j = 0; j < keys; ++j) {
    const float* v = values.at(j) + e;
    F lanes[kQueryVectors];
    for (int n = 0; n < kQueryVectors; ++n) lanes[n] = V::load(p + j * kQueries + n * kWidth);
    for (int c = 0; c < kCount; ++c) {
      const F x = V::set(v[c]);
      for (int n = 0; n < kQueryVectors; ++n) sums[c][n] = V::fma(lanes[n], x, sums[c][n]);
    }
  }
  for (int c = 0; c < kCount; ++c)
    for (int n = 0; n < kQueryVectors; ++n) V::store(out + (e + c) * kQueries + n * kWidth, V::mul_f(sums[c][n], factor[n]));
}

// Cap, mask and causality of a block of scores, for queries from `first` on.
inline void adjust_scores(const PreparedAttention& op, const float* mask, int64_t first, float* scores) {
  const F cap = V::set(op.softcap);
  for (int64_t j = 0; j < op.keys; ++j) {
    float* s = scores + j * kQueries;
    if (op.softcap != 0.0f)
      for (int v = 0; v < kQueryVectors; ++v) V::store(s + v * kWidth, V::mul_f(tanh(V::div(V::load(s + v * kWidth), cap)), cap));
    for (int lane = 0; lane < kQueries && first + lane < op.queries; ++lane) {
      if (mask != nullptr) s[lane] += mask[op.mask.rows.at(first + lane) + op.mask.columns.at(j)];
      if (op.causal && j > first + lane) s[lane] = -INFINITY;
    }
  }
}

inline int64_t query_blocks(const PreparedAttention& op) { return (op.queries + kQueries - 1) / kQueries; }

// Blocks of kQueries queries in [begin, end) of all blocks of a sample: those of one lead index after those of another.
inline void attend(const PreparedAttention& op, const Rows& rows, int64_t row, int64_t begin, int64_t end, float* scratch) {
  float *q = scratch, *scores = q + round_up(kQueries * op.depth), *mixed = scores + round_up(kQueries * op.keys);
  float *k_copy = mixed + round_up(kQueries * op.columns), *v_copy = k_copy + round_up(op.keys * op.depth);
  float* out = v_copy + round_up(op.keys * op.columns);
  const F scale = V::set(op.scale);
  const float* q_row = rows.read(op.q.buffer, row) + op.q.offset;
  const Line line{op.epilogue, rows, row, nullptr};
  const int64_t blocks = query_blocks(op);
  for (int64_t lead = begin / blocks; lead * blocks < end; ++lead) {
    const KeyRows keys = key_rows(op.k, rows.read(op.k.buffer, row), lead, k_copy);
    const KeyRows values = key_rows(op.v, rows.read(op.v.buffer, row), lead, v_copy);
    const float* mask = op.masked ? rows.read(op.mask.buffer, row) + op.mask.offset + op.mask.lead.at(lead) : nullptr;
    const int64_t last = end - lead * blocks < blocks ? (end - lead * blocks) * kQueries : op.queries;
    for (int64_t first = begin > lead * blocks ? (begin - lead * blocks) * kQueries : 0; first < last; first += kQueries) {
      const int64_t count = op.queries - first < kQueries ? op.queries - first : kQueries;
      for (int64_t lane = 0; lane < kQueries; ++lane) {
        const float* from = q_row + op.q.lead.at(lead) + op.q.rows.at(lane < count ? first + lane : 0);
        for (int64_t d = 0; d < op.depth; ++d) q[d * kQueries + lane] = lane < count ? from[op.q.columns.at(d)] : 0.0f;
      }
      int64_t j = 0;
      for (; j + kAtOnce <= op.keys; j += kAtOnce) score_keys<kAtOnce>(q, keys, j, op.depth, scale, scores);
      for (; j < op.keys; ++j) score_keys<1>(q, keys, j, op.depth, scale, scores);
      if (op.masked || op.causal || op.softcap != 0.0f) adjust_scores(op, mask, first, scores);
      F factor[kQueryVectors];
      for (int v = 0; v < kQueryVectors; ++v) {
        float* s = scores + v * kWidth;
        F most = V::set(-INFINITY), sum = V::set(0.0f);
        for (j = 0; j < op.keys; ++j) most = V::max_keep_nan(most, V::load(s + j * kQueries));
        for (j = 0; j < op.keys; ++j) {
          const F p = exp(V::sub(V::load(s + j * kQueries), most));
          V::store(s + j * kQueries, p);
          sum = V::add(sum, p);
        }
        factor[v] = V::div(V::set(1.0f), sum);
      }
      int64_t e = 0;
      for (; e + kAtOnce <= op.columns; e += kAtOnce) mix_values<kAtOnce>(scores, values, op.keys, e, factor, mixed);
      for (; e < op.columns; ++e) mix_values<1>(scores, values, op.keys, e, factor, mixed);
      for (int64_t lane = 0; lane < count; ++lane)
        for (e = 0; e < op.columns; ++e) out[lane * op.columns + e] = mixed[e * kQueries + lane];
      write_points(line, lead * op.queries + first, count, out, op.columns);
    }
  }
}

// Multiply-adds for which another thread is worth waking.
constexpr double kAttentionPerThread = 2e6;

void run_attention(const Prepared& prepared, const Rows& rows, float* scratch) {
  const auto& op = static_cast<const PreparedAttention&>(prepared);
  const int64_t blocks = op.lead * query_blocks(op);
  const double products = static_cast<double>(op.lead * op.queries) * static_cast<double>(op.keys * (op.depth + op.columns));
  int64_t threads = static_cast<int64_t>(products / kAttentionPerThread);
  if (threads > rows.threads) threads = rows.threads;
  if (threads > blocks) threads = blocks;
  if (rows.count > 1 || threads < 2) {
    for (int64_t row = 0; row < rows.count; ++row) attend(op, rows, row, 0, blocks, scratch);
    return;
  }
  struct Parts {
    const PreparedAttention& op;
    const Rows& rows;
    float* scratch;
    int64_t blocks, count;
  } parts{op, rows, scratch, blocks, threads};
  run_parts(
      threads, static_cast<int>(threads),
      [](void* context, int64_t part) {
        const Parts& p = *static_cast<const Parts*>(context);
        float* own = part == 0 ? p.scratch : p.rows.helpers + (part - 1) * p.rows.helper_size;
        attend(p.op, p.rows, 0, p.blocks * part / p.count, p.blocks * (part + 1) / p.count, own);
      },
      &parts);
}

}  // namespace
}  // namespace df::network
