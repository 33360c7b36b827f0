// Applies one row to one vector of elements: the arithmetic of step.h, written once for every implementation.
//
// V is the vector (simd/vector_*.h). Terms answers has(term): a constant in the specialised loops, where absent terms cost
// nothing. Io loads and stores; an absent term is not loaded.

#pragma once

#include "random/normal.h"
#include "simd/host_device.h"
#include "step/step.h"

namespace df {
namespace {

// A sum whose first term is a product and whose later terms are fused multiply-adds.
template <class V>
struct Sum {
  typename V::F value{};
  bool empty = true;
  DF_INLINE void add(float weight, typename V::F x) {
    value = empty ? V::mul_f(V::set(weight), x) : V::fma(V::set(weight), x, value);
    empty = false;
  }
  DF_INLINE typename V::F get() const { return empty ? V::set(0.0f) : value; }
};

template <class V, class Terms, class Io>
DF_INLINE typename V::F model_output(const Row& row, const Terms& terms, Io& io) {
  if (terms.has(kPlainM)) return io.m(terms.has(kG0) ? 0 : terms.has(kG1) ? 1 : 2);
  Sum<V> sum;
  if (terms.has(kG0)) sum.add(row.g[0], io.m(0));
  if (terms.has(kG1)) sum.add(row.g[1], io.m(1));
  if (terms.has(kG2)) sum.add(row.g[2], io.m(2));
  return sum.get();
}

// p*x + q*m, before the clamp.
template <class V, class Terms>
DF_INLINE typename V::F raw_prediction(const Row& row, const Terms& terms, typename V::F x, typename V::F m) {
  Sum<V> sum;
  if (terms.has(kP)) sum.add(row.p, x);
  if (terms.has(kQ)) sum.add(row.q, m);
  return sum.get();
}

template <class V, class Terms, class Io>
DF_INLINE void apply_row(const PreparedRow& prepared, const Terms& terms, Io& io) {
  using Floats = typename V::F;
  const Row& row = prepared.row;
  Floats x{}, m{}, x0{};
  if (terms.has(kA | kP | kEx)) x = io.x();
  if (terms.has(kG0 | kG1 | kG2)) {
    m = model_output<V>(row, terms, io);
    io.check(m);
  }
  if (terms.has(kX0)) {
    x0 = raw_prediction<V>(row, terms, x, m);
    if (terms.has(kClamp)) x0 = V::min_keep_nan(V::set(row.hi), V::max_keep_nan(V::set(row.lo), x0));
    if (terms.has(kR)) x0 = V::mul_f(V::set(row.r), x0);
  }

  Sum<V> next;
  if (terms.has(kA)) next.add(row.a, x);
  if (terms.has(kB)) next.add(row.b, m);
  if (terms.has(kD)) next.add(row.d, x0);
  if (terms.has(kHistory))
    for (int i = 0; i < terms.history_count(prepared); ++i) next.add(row.c[prepared.history[i]], io.h(prepared.history[i]));
  if (terms.has(kS)) next.add(row.s, io.z());
  if (terms.has(kLearnedS)) {
    const Floats s = exp_clipped<V>(V::fma(V::set(row.log_s_b), io.v(), V::set(row.log_s_a)));
    next.value = next.empty ? V::mul_f(s, io.z()) : V::fma(s, io.z(), next.value);
    next.empty = false;
  }
  Floats result = next.get();

  if (terms.has(kMask)) {
    Sum<V> known;
    if (terms.has(kKnownY)) known.add(row.known_y, io.y());
    if (terms.has(kKnownZ)) known.add(row.known_z, io.z_known());
    result = V::fma(io.mask(), V::sub(known.get(), result), result);
  }

  if (terms.has(kWrite)) {
    Sum<V> kept;
    if (terms.has(kEx)) kept.add(row.e_x, x);
    if (terms.has(kEm)) kept.add(row.e_m, m);
    if (terms.has(kE0)) kept.add(row.e_0, x0);
    if (terms.has(kKeep))
      for (int i = 0; i < prepared.keep_count; ++i) kept.add(row.f[prepared.keep[i]], io.h(prepared.keep[i]));
    io.store_h(row.write, kept.get());
  }
  io.store(result);
}

}  // namespace
}  // namespace df
