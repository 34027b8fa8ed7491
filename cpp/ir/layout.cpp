#include "ir/layout.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace mw {

const std::vector<AxisPart>& Layout::parts(std::string_view dim) const {
  static const std::vector<AxisPart> none;
  for (const DimShards& entry : dims) {
    if (entry.dim == dim) return entry.parts;
  }
  return none;
}

void Layout::set(const std::string& dim, std::vector<AxisPart> parts) {
  std::erase_if(dims, [&](const DimShards& entry) { return entry.dim == dim; });
  if (parts.empty()) return;
  const auto at =
      std::lower_bound(dims.begin(), dims.end(), dim, [](const DimShards& entry, const std::string& name) { return entry.dim < name; });
  dims.insert(at, {dim, std::move(parts)});
}

int64_t Layout::shards(std::string_view dim) const { return total_size(parts(dim)); }

std::string to_string(const AxisPart& part) { return part.axis + ":" + std::to_string(part.stride) + ":" + std::to_string(part.size); }

AxisPart parse_axis_part(std::string_view text) {
  const size_t first = text.find(':');
  const size_t second = first == std::string_view::npos ? first : text.find(':', first + 1);
  MW_CHECK(second != std::string_view::npos, "'", text, "' is not a part of an axis; expected axis:stride:size");
  return {std::string(text.substr(0, first)), std::atoll(std::string(text.substr(second + 1)).c_str()),
          std::atoll(std::string(text.substr(first + 1)).c_str())};
}

std::string to_string(const Layout& layout) {
  std::string text;
  const auto add = [&](const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  for (const DimShards& entry : layout.dims) {
    std::string item = entry.dim + ":";
    for (const AxisPart& part : entry.parts)
      item += (item.back() == ':' ? "" : "+") + part.axis + (part.stride > 1 ? "/" + std::to_string(part.stride) : "");
    add(item);
  }
  for (const PartialOver& partial : layout.partial) {
    const char* kind = partial.kind == PartialKind::kSum ? "sum" : partial.kind == PartialKind::kMax ? "max" : "log-sum-exp";
    add(std::string(kind) + " over " + partial.part.axis);
  }
  return text;
}

std::vector<std::string> part_names(const std::vector<AxisPart>& parts) {
  std::vector<std::string> names;
  for (const AxisPart& part : parts) names.push_back(to_string(part));
  return names;
}

int64_t total_size(const std::vector<AxisPart>& parts) {
  int64_t n = 1;
  for (const AxisPart& part : parts) n *= part.size;
  return n;
}

std::vector<AxisPart> joined_parts(const std::vector<AxisPart>& parts) {
  std::vector<AxisPart> joined;
  for (const AxisPart& part : parts) {
    if (!joined.empty() && joined.back().axis == part.axis && joined.back().stride == part.stride * part.size) {
      joined.back() = {part.axis, joined.back().size * part.size, part.stride};
    } else {
      joined.push_back(part);
    }
  }
  return joined;
}

bool overlap(const AxisPart& a, const AxisPart& b) {
  return a.axis == b.axis && a.stride < b.stride * b.size && b.stride < a.stride * a.size;
}

Type local_type(const Type& global, const Layout& layout) {
  Type local = global;
  for (Dim& dim : local.dims) {
    const int64_t shards = layout.shards(dim.name);
    MW_CHECK(dim.size % shards == 0, "dim '", dim.name, "' of ", to_string(global), " does not divide into ", shards, " shards");
    dim.size /= shards;
  }
  return local;
}

}  // namespace mw
