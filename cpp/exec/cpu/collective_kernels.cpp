#include "exec/cpu/collective_kernels.h"

#include <cstring>

#include "base/error.h"

namespace mw::cpu {
namespace {

// Whether the shards along `dim` lie in zigzag order (mesh/mesh.h).
bool is_zigzag(const Signature& signature) {
  const std::string& dim = signature.attributes->text("dim");
  const std::vector<std::string>& axes = signature.attributes->names("axes");
  for (const std::string& axis : axes) {
    if (!mw::is_zigzag(dim, parse_group_part(axis).axis)) continue;
    MW_CHECK(axes.size() == 1, "shards in zigzag order are moved on their own, not with those over other axes");
    return true;
  }
  return false;
}

Group group_of(const Signature& signature, const Mesh& mesh, int64_t rank) {
  std::vector<GroupPart> parts;
  for (const std::string& name : signature.attributes->names("axes")) parts.push_back(parse_group_part(name));
  return make_group(mesh, rank, parts);
}

// A tensor seen as [outer][dim][inner bytes].
struct Strips {
  int64_t outer = 1, size = 1, inner_bytes = 1;
};

Strips strips(const Type& type, const std::string& dim) {
  Strips s;
  const int index = type.index_of(dim);
  MW_CHECK(index >= 0, "a collective over '", dim, "' of ", to_string(type));
  for (int i = 0; i < type.rank(); ++i) {
    const int64_t size = type.dims[static_cast<size_t>(i)].size;
    (i < index ? s.outer : i == index ? s.size : s.inner_bytes) *= size;
  }
  s.inner_bytes *= dtype_bytes(type.dtype);
  return s;
}

// Copies `count` strips of `bytes`, the source and the target with a step of their own.
void copy_strips(const std::byte* from, int64_t from_step, std::byte* to, int64_t to_step, int64_t count, int64_t bytes) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, static_cast<size_t>(bytes));
}

// Where the strip of a part lies among those of all parts: at once, or in zigzag order as two halves.
struct Place {
  int64_t at;    // in the whole, bytes
  int64_t from;  // in the part
  int64_t bytes;
};
std::vector<Place> places(int64_t part, int64_t parts, int64_t strip, bool zigzag) {
  if (!zigzag) return {{part * strip, 0, strip}};
  const int64_t half = strip / 2;
  return {{part * half, 0, half}, {(2 * parts - 1 - part) * half, half, half}};
}

// [parts][outer][strip] <-> [outer][parts][strip]
void blocks_to_dim(const std::byte* blocks, std::byte* whole, int64_t parts, int64_t outer, int64_t strip, bool zigzag = false) {
  for (int64_t p = 0; p < parts; ++p) {
    for (const Place& place : places(p, parts, strip, zigzag))
      copy_strips(blocks + p * outer * strip + place.from, strip, whole + place.at, parts * strip, outer, place.bytes);
  }
}
void dim_to_blocks(const std::byte* whole, std::byte* blocks, int64_t parts, int64_t outer, int64_t strip, bool zigzag = false) {
  for (int64_t p = 0; p < parts; ++p) {
    for (const Place& place : places(p, parts, strip, zigzag))
      copy_strips(whole + place.at, parts * strip, blocks + p * outer * strip + place.from, strip, outer, place.bytes);
  }
}

// Whether shards follow each other in memory as the communicator wants them.
bool is_direct(const Signature& s, const Type& shard) { return strips(shard, s.attributes->text("dim")).outer == 1 && !is_zigzag(s); }

Collective make_all_gather(const Signature& s, const Group& group, Communicator& comm) {
  const Strips in = strips(s.operand(0), s.attributes->text("dim"));
  const int64_t bytes = s.operand(0).bytes(), parts = group.size(), strip = in.size * in.inner_bytes;
  const bool direct = is_direct(s, s.operand(0));
  const auto blocks = [direct](const KernelRun& r) { return direct ? r.results[0] : r.workspace; };
  const auto arrange = [=, zigzag = is_zigzag(s)](const KernelRun& r) {
    if (!direct) blocks_to_dim(r.workspace, r.results[0], parts, in.outer, strip, zigzag);
  };
  return {.kernel = {.workspace_bytes = direct ? 0 : bytes * parts,
                     .run =
                         [=, &comm](const KernelRun& r) {
                           comm.all_gather(group, r.operands[0], blocks(r), bytes);
                           arrange(r);
                         },
                     .choice = "all_gather"},
          .start = [=, &comm](const KernelRun& r) { return comm.start_all_gather(group, r.operands[0], blocks(r), bytes); },
          .finish =
              [=](const KernelRun& r, Transfer& transfer) {
                transfer.finish();
                arrange(r);
              }};
}

Collective make_reduce_scatter(const Signature& s, const Group& group, Communicator& comm) {
  const Type out = s.result(0);
  const Strips strip_of = strips(out, s.attributes->text("dim"));
  const int64_t parts = group.size(), strip = strip_of.size * strip_of.inner_bytes, count = out.elements();
  const DType dtype = out.dtype;
  const bool direct = is_direct(s, out);
  // One after another by rank, as the communicator wants them.
  const auto blocks = [=, zigzag = is_zigzag(s)](const KernelRun& r) -> const std::byte* {
    if (direct) return r.operands[0];
    dim_to_blocks(r.operands[0], r.workspace, parts, strip_of.outer, strip, zigzag);
    return r.workspace;
  };
  return {.kernel = {.workspace_bytes = direct ? 0 : out.bytes() * parts,
                     .run = [=, &comm](const KernelRun& r) { comm.reduce_scatter(group, dtype, blocks(r), r.results[0], count); },
                     .choice = "reduce_scatter"},
          .start = [=, &comm](const KernelRun& r) { return comm.start_reduce_scatter(group, dtype, blocks(r), r.results[0], count); },
          .finish = [](const KernelRun&, Transfer& transfer) { transfer.finish(); }};
}

Collective make_all_reduce(const Signature& s, const Group& group, Communicator& comm) {
  const DType dtype = s.operand(0).dtype;
  const int64_t count = s.operand(0).elements();
  const ReduceKind kind = s.attributes->text("kind") == "max" ? ReduceKind::kMax : ReduceKind::kSum;
  return {.kernel = {.workspace_bytes = 0,
                     .run = [=, &comm](const KernelRun& r) { comm.all_reduce(group, dtype, kind, r.operands[0], r.results[0], count); },
                     .choice = "all_reduce"},
          .start = [=, &comm](const KernelRun& r) { return comm.start_all_reduce(group, dtype, kind, r.operands[0], r.results[0], count); },
          .finish = [](const KernelRun&, Transfer& transfer) { transfer.finish(); }};
}

Collective make_ring_shift(const Signature& s, const Group& group, Communicator& comm) {
  const int64_t bytes = s.operand(0).bytes();
  return {.kernel = {.workspace_bytes = 0,
                     .run = [=, &comm](const KernelRun& r) { comm.shift(group, 1, r.operands[0], r.results[0], bytes); },
                     .choice = "shift"},
          .start = [=, &comm](const KernelRun& r) { return comm.start_shift(group, 1, r.operands[0], r.results[0], bytes); },
          .finish = [](const KernelRun&, Transfer& transfer) { transfer.finish(); }};
}

// Splits one dim over the group and gathers another: both sides pass through blocks by rank.
Kernel make_all_to_all(const Signature& s, Group group, Communicator& comm) {
  const Type in = s.operand(0), out = s.result(0);
  const Strips split = strips(in, s.attributes->text("split_dim")), joined = strips(out, s.attributes->text("concat_dim"));
  const int64_t parts = group.size(), block = in.bytes() / parts;
  return {.workspace_bytes = 2 * in.bytes(),
          .run =
              [=, &comm](const KernelRun& r) {
                std::byte *sent = r.workspace, *received = r.workspace + block * parts;
                dim_to_blocks(r.operands[0], sent, parts, split.outer, split.size / parts * split.inner_bytes);
                comm.all_to_all(group, sent, received, block);
                blocks_to_dim(received, r.results[0], parts, joined.outer, joined.size / parts * joined.inner_bytes);
              },
          .choice = "all_to_all"};
}

Kernel make_shard_slice(const Signature& s, const Group& group) {
  const Strips out = strips(s.result(0), s.attributes->text("dim"));
  const int64_t strip = out.size * out.inner_bytes, parts = group.size(), index = group.index;
  return {.workspace_bytes = 0,
          .run =
              [=, places = places(index, parts, strip, is_zigzag(s))](const KernelRun& r) {
                for (const Place& place : places)
                  copy_strips(r.operands[0] + place.at, parts * strip, r.results[0] + place.from, strip, out.outer, place.bytes);
              },
          .choice = "copy"};
}

}  // namespace

int64_t collective_workspace_bytes(const OpDef& def, const Signature& signature) {
  if (is_expert_exchange(def)) return expert_exchange_workspace_bytes(def, signature);
  const int64_t parts = signature.attributes->integer("parts");
  if (def.name == "all_gather") return is_direct(signature, signature.operand(0)) ? 0 : signature.operand(0).bytes() * parts;
  if (def.name == "reduce_scatter") return is_direct(signature, signature.result(0)) ? 0 : signature.result(0).bytes() * parts;
  return def.name == "all_to_all" ? 2 * signature.operand(0).bytes() : 0;
}

Collective make_collective(const OpDef& def, const Signature& signature, const Mesh& mesh, Communicator& communicator, ExpertLoad& load) {
  const Group group = group_of(signature, mesh, communicator.rank());
  if (is_expert_exchange(def)) return {.kernel = make_expert_exchange(def, signature, group, communicator, load)};
  if (def.name == "all_gather") return make_all_gather(signature, group, communicator);
  if (def.name == "reduce_scatter") return make_reduce_scatter(signature, group, communicator);
  if (def.name == "all_reduce") return make_all_reduce(signature, group, communicator);
  if (def.name == "all_to_all") return {.kernel = make_all_to_all(signature, group, communicator)};
  if (def.name == "shard_slice") return {.kernel = make_shard_slice(signature, group)};
  if (def.name == "ring_shift") return make_ring_shift(signature, group, communicator);
  if (def.name == "shard_offset") {
    const int64_t part = (group.index - signature.attributes->integer_or("behind", 0) + group.size()) % group.size();
    const auto offset = static_cast<int32_t>(part * signature.attributes->integer("size"));
    return {.kernel = {.workspace_bytes = 0,
                       .run = [offset](const KernelRun& r) { std::memcpy(r.results[0], &offset, sizeof offset); },
                       .choice = "constant"}};
  }
  throw InternalError("no collective '" + std::string(def.name) + "'");
}

}  // namespace mw::cpu
