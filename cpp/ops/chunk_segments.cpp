// chunk_segments: segment ids by which plain attention becomes chunked (Llama 4): with key_i = (segment_i, position_i / chunk),
//   y_i = min { j : key_j = key_i }
// Positions begin again in each packed sequence and behind left padding, and chunks with them.
#include <array>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/expect.h"
#include "ops/op_list.h"

namespace mw {
namespace {

std::vector<Type> infer(const Signature& signature) {
  const Type &segments = signature.operand(0), &positions = signature.operand(1);
  expect_dims("segment_ids", segments, {"batch", "seq"});
  expect_dtype("segment_ids", segments, DType::kI32);
  expect_dtype("positions", positions, DType::kI32);
  expect_same_dims("positions", positions, "segment_ids", segments.dims);
  const int64_t chunk = signature.attributes->integer("chunk");
  if (chunk <= 0) throw UserError("chunk is " + std::to_string(chunk) + "; expected a positive number of positions");
  return {segments};
}

DimRole role(const Signature&, std::string_view dim) { return {.use = dim == "batch" ? DimUse::kMapped : DimUse::kWhole}; }

void reference(const ReferenceContext& context) {
  const HostArray &segments = context.operand(0), &positions = context.operand(1);
  const int64_t seq = segments.type.dims[1].size, chunk = context.attributes->integer("chunk");
  for (size_t i = 0; i < segments.data.size(); ++i) {
    const size_t row = i - i % static_cast<size_t>(seq);
    const auto key = [&](size_t t) { return std::pair(segments.data[t], chunk_of(static_cast<int64_t>(positions.data[t]), chunk)); };
    size_t j = row;
    while (key(j) != key(i)) ++j;
    context.result(0).data[i] = static_cast<double>(j - row);
  }
}

const std::array<OpDef, 1> kDefs{OpDef{
    .name = "chunk_segments",
    .doc = "Of each token the index, within its row, of the first token with the same (segment id, position / chunk): segment ids for "
           "chunked attention.",
    .num_operands = 2,
    .infer = infer,
    .role = role,
    .reference = reference}};

}  // namespace

std::span<const OpDef> chunk_segments_ops() { return kDefs; }

Tensor chunk_segments(Tensor segment_ids, Tensor positions, int64_t chunk, Source source) {
  return segment_ids.builder->append1(kDefs[0], {segment_ids, positions}, {{"chunk", chunk}}, source);
}

}  // namespace mw
