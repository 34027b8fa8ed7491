#include "train/explain.h"

#include <map>
#include <sstream>

#include "base/error.h"

namespace mw {
namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : "+") + name.substr(0, name.find(':'));
  return text;
}

std::string mib(int64_t bytes) {
  std::ostringstream out;
  out.precision(1);
  out << std::fixed << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return out.str();
}

const char* role_name(BufferRole role) {
  switch (role) {
    case BufferRole::kParameter: return "parameters";
    case BufferRole::kAccumulator: return "gradients";
    case BufferRole::kOptimizerState: return "optimizer state";
    case BufferRole::kCache: return "caches";
    case BufferRole::kInput: return "batch fields";
    case BufferRole::kScalar: return "scalars";
    case BufferRole::kActivation: return "activations";
    case BufferRole::kResult: return "results";
  }
  return "?";
}

}  // namespace

std::string list_collectives(const Plan& plan) {
  std::ostringstream out;
  for (const Piece& piece : plan.pieces) {
    for (const Op& op : piece.program.ops) {
      if (!op.def->collective || op.def->name == "shard_slice" || op.def->name == "shard_offset") continue;
      out << piece.name << (piece.variant.empty() ? "" : " (" + piece.variant + ")") << "  " << op.def->name << " over " << joined(op.attributes.names("axes")) << "  "
          << to_string(piece.program.type(op.operands[0])) << " -> " << to_string(piece.program.type(op.results[0])) << "  " << piece.program.type(op.operands[0]).bytes() << " bytes  "
          << piece.program.scopes[static_cast<size_t>(op.scope)] << "  " << piece.program.sources[static_cast<size_t>(op.source)] << "\n";
    }
  }
  return out.str();
}

std::string list_memory(const Plan& plan) {
  std::map<std::string, int64_t> kept, carried;
  for (const Buffer& buffer : plan.kept) kept[role_name(buffer.role)] += buffer.bytes;
  for (const Buffer& buffer : plan.carried) carried[role_name(buffer.role)] += buffer.bytes;
  std::ostringstream out;
  for (const auto& [role, bytes] : kept) out << "kept      " << role << "  " << mib(bytes) << "\n";
  for (const auto& [role, bytes] : carried) out << "carried   " << role << "  " << mib(bytes * plan.carried_copies) << "\n";
  for (const Piece& piece : plan.pieces) out << "scratch   " << piece.name << (piece.variant.empty() ? "" : " " + piece.variant) << "  " << mib(piece.scratch_bytes) << "\n";
  out << "results   " << mib(plan.result_bytes) << "\npeak      " << mib(plan.peak_bytes()) << "\n";
  return out.str();
}

std::string explain_step(const TrainStep& step, int64_t batch, int64_t seq, const std::string& after) {
  std::string text;
  std::vector<std::string> known{"memory", "collectives"};
  const Plan plan = step.make_plan(batch, seq, [&](std::string_view pass, const Plan& current) {
    known.emplace_back(pass);
    if (pass != after) return;
    for (const Piece& piece : current.pieces) text += "// " + piece.name + (piece.variant.empty() ? "" : " (" + piece.variant + ")") + "\n" + piece.program.to_text(true);
  });
  if (after == "memory") return list_memory(plan);
  if (after == "collectives") return list_collectives(plan);
  if (text.empty()) throw UserError("explain: there is no pass '" + after + "'" + did_you_mean(after, known));
  return text;
}

}  // namespace mw
