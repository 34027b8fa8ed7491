#include "passes/explain.h"

#include <map>
#include <sstream>

#include "ir/layout.h"

namespace mw {
namespace {

// "fsdp=2+tensor=4": the axes, or factors of them, with their sizes.
std::string axes_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    const AxisPart part = parse_axis_part(name);
    text += (text.empty() ? "" : "+") + part.axis + (part.stride > 1 ? "/" + std::to_string(part.stride) : "") + "=" +
            std::to_string(part.size);
  }
  return text;
}

std::string dims_text(const Op& op) {
  if (op.def->name == "all_to_all") return " " + op.attributes.text("split_dim") + " -> " + op.attributes.text("concat_dim");
  if (op.def->name == "all_reduce") return op.attributes.text("kind") == "sum" ? "" : " " + op.attributes.text("kind");
  return op.attributes.find("dim") ? " " + op.attributes.text("dim") : "";
}

std::string mib(int64_t bytes) {
  std::ostringstream out;
  out.precision(1);
  out << std::fixed << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return out.str();
}

// "57 (layers.4.mlp.down)": the op in front of which the collective `op` is finished.
std::string flight_end(const Piece& piece, size_t op) {
  const auto end = static_cast<size_t>(piece.finish[op]);
  if (end >= piece.program.ops.size()) return "the end";
  return std::to_string(end) + " (" + piece.program.scopes[static_cast<size_t>(piece.program.ops[end].scope)] + ")";
}

const char* role_name(BufferRole role) {
  switch (role) {
    case BufferRole::kParameter:
      return "parameters";
    case BufferRole::kAccumulator:
      return "gradients";
    case BufferRole::kOptimizerState:
      return "optimizer state";
    case BufferRole::kCache:
      return "caches";
    case BufferRole::kInput:
      return "batch fields";
    case BufferRole::kScalar:
      return "scalars";
    case BufferRole::kActivation:
      return "activations";
    case BufferRole::kResult:
      return "results";
  }
  return "?";
}

}  // namespace

std::string piece_title(const Piece& piece) { return piece.name + (piece.variant.empty() ? "" : " (" + piece.variant + ")"); }

bool communicates(const Op& op) {
  const std::string_view name = op.def->name;
  return op.def->collective && name != "shard_slice" && name != "shard_offset" && name != "dispatched_experts";
}

std::string list_programs(const Plan& plan, Sources sources) {
  std::string text;
  for (const Piece& piece : plan.pieces) text += "// " + piece_title(piece) + "\n" + piece.program.to_text(sources == Sources::kWith);
  return text;
}

std::string list_collectives(const Plan& plan, Sources sources) {
  std::ostringstream out;
  for (const Piece& piece : plan.pieces) {
    const Program& program = piece.program;
    for (size_t i = 0; i < program.ops.size(); ++i) {
      const Op& op = program.ops[i];
      if (!communicates(op)) continue;
      const Type& given = program.type(op.operands[0]);
      out << piece_title(piece) << "  " << op.def->name << dims_text(op) << " over " << axes_text(op.attributes.names("axes")) << "  "
          << to_string(given) << " -> " << to_string(program.type(op.results[0])) << "  " << given.bytes() << " bytes  "
          << program.scopes[static_cast<size_t>(op.scope)];
      if (program.passes[static_cast<size_t>(op.pass)] == "rematerialize") out << "  recomputed";
      if (piece.in_flight(i)) out << "  in flight " << i << " to " << flight_end(piece, i);
      if (sources == Sources::kWith) out << "  " << program.sources[static_cast<size_t>(op.source)];
      out << "\n";
    }
    for (const Mail& mail : piece.sends) {
      const SharedValue& value = plan.shared.at(mail.name);
      const Type local = local_type(value.global_type, value.layout);
      out << piece_title(piece) << "  send to stage " << mail.stage << "  " << mail.name << "  " << to_string(local) << "  "
          << local.bytes() << " bytes\n";
    }
  }
  return out.str();
}

std::string list_memory(const Plan& plan) {
  std::map<std::string, int64_t> kept, carried;
  for (const Buffer& buffer : plan.kept) kept[role_name(buffer.role)] += buffer.bytes;
  for (const Buffer& buffer : plan.carried) carried[role_name(buffer.role)] += buffer.bytes * buffer.copies;
  std::ostringstream out;
  for (const auto& [role, bytes] : kept) out << "kept      " << role << "  " << mib(bytes) << "\n";
  int64_t apart = 0;
  for (const auto& [role, bytes] : carried) {
    out << "carried   " << role << "  " << mib(bytes) << "\n";
    apart += bytes;
  }
  if (apart > plan.carried_bytes) out << "carried   together  " << mib(plan.carried_bytes) << ": gradients lie where activations were\n";
  if (plan.host_bytes > 0) out << "host      activations  " << mib(plan.host_bytes) << ", not part of the peak\n";
  for (const Piece& piece : plan.pieces) out << "scratch   " << piece_title(piece) << "  " << mib(piece.scratch_bytes) << "\n";
  out << "results   " << mib(plan.result_bytes) << "\npeak      " << mib(plan.peak_bytes()) << "\n";
  return out.str();
}

}  // namespace mw
