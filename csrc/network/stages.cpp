#include <algorithm>

#include "network/operation.h"

namespace df::network {
namespace {

bool is_per_channel(const Access& access) { return access.points.table.empty() && access.points.stride == 0; }

bool is_folded(Unary function) {
  return function == Unary::kSilu || function == Unary::kGelu || function == Unary::kGeluTanh || function == Unary::kMish ||
         function == Unary::kRelu;
}

void prepare_norm(const Stage& stage, const View& view, int inner, PreparedStage& out) {
  // The moment of an element as an offset: the axes repeat, but for the groups of the first.
  View moment;
  moment.dims.resize(view.dims.size());
  int64_t stride = 1;
  for (int d = view.rank() - 1; d >= 0; --d) {
    const int64_t size = view.size(d);
    const bool axis = std::find(stage.axes.begin(), stage.axes.end(), d) != stage.axes.end();
    const int64_t count = !axis ? size : d == stage.axes[0] ? stage.groups : 1;
    moment.dims[static_cast<size_t>(d)] = {{count, stride}, {size / count, 0}};
    stride *= count;
  }
  const Access split = access(moment, inner);
  out.norm = stage.norm;
  out.epsilon = stage.number;
  out.moments = stride;
  out.moment_size = view.elements() / stride;
  out.point_moment = split.points;
  out.inner_moment = split.inner;
  const int64_t points = split.points.count;
  const bool same_points = out.point_moment.table.empty() && out.point_moment.stride == 0;
  const bool same_inner = out.inner_moment.table.empty() && out.inner_moment.stride == 0;
  if (same_points && points > 1) {
    out.form = PreparedStage::kByChannel;
  } else if (same_inner && out.moments == points) {
    out.form = PreparedStage::kByPoint;
  } else {
    out.form = same_points ? PreparedStage::kByChannel : PreparedStage::kGeneral;
  }
}

}  // namespace

Stages prepare_stages(const std::vector<Stage>& stages, const View& view, int inner) {
  Stages out;
  out.view = access(view, inner);
  out.points = out.view.points.count;
  out.inner = out.view.inner.count;
  for (size_t i = 0; i < stages.size(); ++i) {
    const Stage& stage = stages[i];
    PreparedStage prepared;
    prepared.type = stage.type;
    prepared.unary = stage.unary;
    prepared.binary = stage.binary;
    prepared.number = static_cast<float>(stage.number);
    if (stage.type == Stage::kOperand) prepared.operand = access(stage.operand, inner);
    if (stage.type == Stage::kNorm) {
      prepare_norm(stage, view, inner, prepared);
      const auto per_channel = [&](Binary function, Access& operand) {
        if (i + 1 == stages.size() || stages[i + 1].type != Stage::kOperand || stages[i + 1].binary != function) return false;
        operand = access(stages[i + 1].operand, inner);
        if (!is_per_channel(operand)) return false;
        ++i;
        return true;
      };
      if (prepared.form != PreparedStage::kGeneral) {
        prepared.scaled = per_channel(Binary::kMultiply, prepared.scale);
        prepared.shifted = per_channel(Binary::kAdd, prepared.shift);
        if (i + 1 < stages.size() && stages[i + 1].type == Stage::kUnary && is_folded(stages[i + 1].unary)) {
          prepared.activated = true;
          prepared.unary = stages[++i].unary;
        }
      }
      prepared.table = out.moments;
      prepared.table_size = round_up(prepared.form == PreparedStage::kByChannel ? out.inner : prepared.moments);
      out.moments += 3 * prepared.table_size;
      // A tile of points, and a double for each sum.
      const int64_t sums = prepared.form == PreparedStage::kByChannel ? 2 * out.inner : prepared.moments;
      out.work = std::max(out.work, kTilePoints * round_up(out.inner) + round_up(2 * sums));
    }
    out.list.push_back(std::move(prepared));
  }
  return out;
}

}  // namespace df::network
