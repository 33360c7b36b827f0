#include <stdexcept>

#include "network/operation.h"

namespace df::network {

namespace {

// The atoms without those of size 1, neighbours that are one stride merged.
Dim merged(const Dim& dim) {
  Dim out;
  for (const Atom& atom : dim) {
    if (atom.size == 1) continue;
    if (!out.empty() && out.back().stride == atom.size * atom.stride) {
      out.back() = {out.back().size * atom.size, atom.stride};
    } else {
      out.push_back(atom);
    }
  }
  return out;
}

}  // namespace

Steps steps(const Dim& dim) {
  const Dim atoms = merged(dim);
  Steps out;
  for (const Atom& atom : atoms) out.count *= atom.size;
  if (atoms.size() <= 1) {
    out.stride = atoms.empty() ? 0 : atoms[0].stride;
    return out;
  }
  out.table.reserve(static_cast<size_t>(out.count));
  out.table.push_back(0);
  for (const Atom& atom : atoms) {  // outermost first: each atom multiplies what is there
    std::vector<int32_t> finer;
    finer.reserve(out.table.size() * static_cast<size_t>(atom.size));
    for (const int32_t base : out.table)
      for (int64_t i = 0; i < atom.size; ++i) finer.push_back(static_cast<int32_t>(base + i * atom.stride));
    out.table = std::move(finer);
  }
  return out;
}

Access access(const View& view, int inner) {
  Access out;
  out.buffer = view.buffer;
  out.offset = view.offset;
  Dim points;
  for (int d = 0; d < view.rank(); ++d) {
    const Dim& dim = view.dims[static_cast<size_t>(d)];
    if (d == inner) {
      out.inner = steps(dim);
    } else {
      points.insert(points.end(), dim.begin(), dim.end());
    }
  }
  out.points = steps(points);
  return out;
}

std::span<const float> dense(const View& view, const float* row, std::vector<float>& storage) {
  Dim all;
  for (const Dim& dim : view.dims) all.insert(all.end(), dim.begin(), dim.end());
  const auto count = static_cast<size_t>(view.elements());
  if (const Dim atoms = merged(all); atoms.empty() || (atoms.size() == 1 && atoms[0].stride == 1))
    return {row + view.offset, count};
  const Access a = access(view, view.rank() - 1);
  storage.resize(count);
  float* out = storage.data();
  for (int64_t p = 0; p < a.points.count; ++p)
    for (int64_t i = 0; i < a.inner.count; ++i) *out++ = row[a.offset + a.points.at(p) + a.inner.at(i)];
  return storage;
}

}  // namespace df::network
