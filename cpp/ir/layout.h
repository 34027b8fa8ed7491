// How a value lies over the mesh: for each dim the parts of mesh axes that shard it, major first, and the parts over which it is still
// a partial result.
//
//   {embed: [fsdp]}  partial over [data]        to_string  ->  "embed:fsdp, sum over data"
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ir/op_def.h"
#include "ir/type.h"

namespace mw {

// A factor of a mesh axis: a rank's index in it is (coordinate / stride) % size. A whole axis has stride 1.
struct AxisPart {
  std::string axis;
  int64_t size = 1;
  int64_t stride = 1;
  bool operator==(const AxisPart&) const = default;
};

struct DimShards {
  std::string dim;
  std::vector<AxisPart> parts;
  bool operator==(const DimShards&) const = default;
};

struct PartialOver {
  AxisPart part;
  PartialKind kind = PartialKind::kSum;
  bool operator==(const PartialOver&) const = default;
};

struct Layout {
  std::vector<DimShards> dims;  // only dims that are sharded
  std::vector<PartialOver> partial;

  bool operator==(const Layout&) const = default;
  const std::vector<AxisPart>& parts(std::string_view dim) const;
  void set(const std::string& dim, std::vector<AxisPart> parts);
  int64_t shards(std::string_view dim) const;
  Layout without_partial() const { return {dims, {}}; }
};

std::string to_string(const AxisPart& part);  // "tensor:4:2": of the axis tensor, stride 4, size 2; collectives name parts so
AxisPart parse_axis_part(std::string_view text);
std::string to_string(const Layout& layout);  // "" when whole everywhere
std::vector<std::string> part_names(const std::vector<AxisPart>& parts);
int64_t total_size(const std::vector<AxisPart>& parts);
// Neighbouring factors of one axis as one: {tensor/2=2, tensor=2} is {tensor=4}.
std::vector<AxisPart> joined_parts(const std::vector<AxisPart>& parts);
// Whether they share ranks' digits.
bool overlap(const AxisPart& a, const AxisPart& b);

// The type of one rank's shard.
Type local_type(const Type& global, const Layout& layout);

}  // namespace mw
