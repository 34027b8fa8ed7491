#include "passes/convert.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "mesh/mesh.h"
#include "ops/ops.h"

namespace mw {
namespace {

using Parts = std::vector<AxisPart>;

Parts common_prefix(const Parts& a, const Parts& b) {
  Parts prefix;
  for (size_t i = 0; i < a.size() && i < b.size() && a[i] == b[i]; ++i) prefix.push_back(a[i]);
  return prefix;
}

Parts tail(const Parts& parts, size_t from) { return {parts.begin() + static_cast<std::ptrdiff_t>(from), parts.end()}; }

void set_parts(Sharded& value, const std::string& dim, Parts parts) { value.layout.set(dim, std::move(parts)); }

void remove_partial(Sharded& value, const Parts& parts) {
  std::erase_if(value.layout.partial, [&](const PartialOver& p) { return std::find(parts.begin(), parts.end(), p.part) != parts.end(); });
}

// As collectives name it: neighbouring factors of one axis are one factor.
std::vector<std::string> names_of(const Parts& parts) { return part_names(joined_parts(parts)); }

bool is_zigzag_over(const std::string& dim, const Parts& parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const AxisPart& part) { return is_zigzag(dim, part.axis); });
}

// Runs of parts that one collective moves along `dim`: those in zigzag order go alone.
std::vector<Parts> together(const std::string& dim, const Parts& parts) {
  std::vector<Parts> runs;
  for (const AxisPart& part : parts) {
    if (runs.empty() || is_zigzag(dim, part.axis) != is_zigzag_over(dim, runs.back())) runs.emplace_back();
    runs.back().push_back(part);
  }
  return runs;
}

// Splits parts at every stride in `cuts`, so that two layouts that share factors of an axis name them alike.
Parts refined(const Parts& parts, const std::map<std::string, std::set<int64_t>>& cuts) {
  Parts fine;
  for (const AxisPart& part : parts) {
    int64_t end = part.stride * part.size;
    const std::set<int64_t>& strides = cuts.at(part.axis);
    for (auto at = strides.rbegin(); at != strides.rend(); ++at) {
      if (*at >= end || *at < part.stride || end % *at != 0 || *at % part.stride != 0) continue;
      fine.push_back({part.axis, end / *at, *at});
      end = *at;
    }
  }
  return fine;
}

Layout refined(const Layout& layout, const std::map<std::string, std::set<int64_t>>& cuts) {
  Layout fine;
  for (const DimShards& entry : layout.dims) fine.set(entry.dim, refined(entry.parts, cuts));
  for (const PartialOver& partial : layout.partial) {
    for (const AxisPart& part : refined(Parts{partial.part}, cuts)) fine.partial.push_back({part, partial.kind});
  }
  return fine;
}

void add_cuts(const Layout& layout, std::map<std::string, std::set<int64_t>>& cuts) {
  const auto add = [&](const AxisPart& part) { cuts[part.axis].insert({part.stride, part.stride * part.size}); };
  for (const DimShards& entry : layout.dims) {
    for (const AxisPart& part : entry.parts) add(part);
  }
  for (const PartialOver& partial : layout.partial) add(partial.part);
}

bool is_partial_over(const Layout& layout, const AxisPart& part, PartialKind kind) {
  return std::find(layout.partial.begin(), layout.partial.end(), PartialOver{part, kind}) != layout.partial.end();
}

// log(sum over ranks of exp(x)): the maximum first, so that nothing overflows.
Tensor all_reduce_log_sum_exp(Tensor x, const Parts& parts) {
  const int64_t n = total_size(parts);
  const Tensor top = all_reduce(x, "max", names_of(parts), n);
  return log(all_reduce(exp(x - top), "sum", names_of(parts), n)) + top;
}

// Reduce-scatters where the target shards a dim by parts over which the value is a partial sum.
void reduce_by_scattering(Sharded& value, const Layout& to) {
  for (const DimShards& target : to.dims) {
    const Parts& have = value.layout.parts(target.dim);
    if (common_prefix(have, target.parts).size() != have.size()) continue;
    Parts scattered;
    for (const AxisPart& part : tail(target.parts, have.size())) {
      if (!is_partial_over(value.layout, part, PartialKind::kSum)) break;
      scattered.push_back(part);
    }
    if (scattered.empty()) continue;
    Parts now = have;
    now.insert(now.end(), scattered.begin(), scattered.end());
    for (const Parts& run : together(target.dim, scattered))
      value.local = reduce_scatter(value.local, target.dim, names_of(run), total_size(run));
    remove_partial(value, scattered);
    set_parts(value, target.dim, now);
  }
}

void reduce_the_rest(Sharded& value, const Layout& to) {
  // In the order of the axes, major factors first: sums of one set of ranks have one name.
  std::stable_sort(value.layout.partial.begin(), value.layout.partial.end(), [](const PartialOver& a, const PartialOver& b) {
    return a.part.axis < b.part.axis || (a.part.axis == b.part.axis && a.part.stride > b.part.stride);
  });
  for (const PartialKind kind : {PartialKind::kSum, PartialKind::kMax, PartialKind::kLogSumExp}) {
    Parts parts;
    for (const PartialOver& partial : value.layout.partial) {
      if (partial.kind == kind && !is_partial_over(to, partial.part, kind)) parts.push_back(partial.part);
    }
    if (parts.empty()) continue;
    if (kind == PartialKind::kLogSumExp) {
      value.local = all_reduce_log_sum_exp(value.local, parts);
    } else {
      value.local = all_reduce(value.local, kind == PartialKind::kSum ? "sum" : "max", names_of(parts), total_size(parts));
    }
    remove_partial(value, parts);
  }
}

// A part that moves from one dim to another: one all-to-all instead of a gather and a slice.
void move_between_dims(Sharded& value, const Layout& to) {
  for (const DimShards& target : to.dims) {
    const Parts have = value.layout.parts(target.dim);
    if (common_prefix(have, target.parts).size() != have.size() || target.parts.size() == have.size()) continue;
    const Parts wanted = tail(target.parts, have.size());
    for (const DimShards& source : std::vector<DimShards>(value.layout.dims)) {
      const Parts kept = common_prefix(source.parts, to.parts(source.dim));
      if (source.dim == target.dim || tail(source.parts, kept.size()) != wanted) continue;
      if (is_zigzag_over(source.dim, wanted) || is_zigzag_over(target.dim, wanted)) continue;
      value.local = all_to_all(value.local, target.dim, source.dim, names_of(wanted), total_size(wanted));
      set_parts(value, source.dim, kept);
      set_parts(value, target.dim, target.parts);
      break;
    }
  }
}

void slice_dims(Sharded& value, const Layout& to) {
  for (const DimShards& target : to.dims) {
    const Parts have = value.layout.parts(target.dim);
    if (common_prefix(have, target.parts).size() != have.size()) continue;
    const Parts more = tail(target.parts, have.size());
    // A part that still shards another dim (or is partial) is given to this one only after that is gathered.
    const bool taken = std::any_of(more.begin(), more.end(), [&](const AxisPart& part) {
      for (const DimShards& entry : value.layout.dims) {
        for (const AxisPart& other : entry.parts) {
          if (other == part && entry.dim != target.dim) return true;
        }
      }
      return false;
    });
    if (more.empty() || taken) continue;
    for (const Parts& run : together(target.dim, more)) value.local = shard_slice(value.local, target.dim, names_of(run), total_size(run));
    set_parts(value, target.dim, target.parts);
  }
}

void gather_dims(Sharded& value, const Layout& to) {
  for (const DimShards& source : std::vector<DimShards>(value.layout.dims)) {
    const Parts kept = common_prefix(source.parts, to.parts(source.dim));
    const Parts gathered = tail(source.parts, kept.size());
    if (gathered.empty()) continue;
    const std::vector<Parts> runs = together(source.dim, gathered);
    for (auto run = runs.rbegin(); run != runs.rend(); ++run)
      value.local = all_gather(value.local, source.dim, names_of(*run), total_size(*run));
    set_parts(value, source.dim, kept);
  }
}

}  // namespace

Sharded convert(Sharded value, const Layout& wanted) {
  std::map<std::string, std::set<int64_t>> cuts;
  add_cuts(value.layout, cuts);
  add_cuts(wanted, cuts);
  const Layout to = refined(wanted, cuts);
  value.layout = refined(value.layout, cuts);
  reduce_by_scattering(value, to);
  reduce_the_rest(value, to);
  move_between_dims(value, to);
  slice_dims(value, to);
  gather_dims(value, to);
  slice_dims(value, to);
  MW_CHECK(value.layout.dims == to.dims, "conversion to (", to_string(to), ") ended at (", to_string(value.layout), ")");
  MW_CHECK(value.local.type() == local_type(value.global, value.layout), "conversion to (", to_string(to), ") made ",
           to_string(value.local.type()));
  value.layout = wanted;
  return value;
}

}  // namespace mw
