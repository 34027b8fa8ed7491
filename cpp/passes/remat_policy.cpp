#include "passes/remat_policy.h"

#include <algorithm>

#include "base/error.h"

namespace mw {
namespace {

constexpr RematFate kRecompute = RematFate::kRecompute, kKeep = RematFate::kKeep, kOffload = RematFate::kOffload;

struct PolicyRow {
  const char* kind;
  RematFate products;
  std::vector<const char*> names;
  RematFate fate = kKeep;  // of the names
};

const std::vector<PolicyRow>& table() {
  // Projections of queries, keys and values; several families have some of them only.
  static const std::vector<const char*> qkv{"query_proj", "key_proj", "value_proj", "qkv_proj"};
  const auto with = [](std::vector<const char*> names, std::initializer_list<const char*> more) {
    names.insert(names.end(), more);
    return names;
  };
  static const std::vector<PolicyRow> rows{
      {"none", kKeep, {}},
      {"full", kRecompute, {}},
      {"minimal", kKeep, {}},
      {"minimal_with_context", kKeep, {"context"}},
      {"minimal_flash", kKeep, {"context"}},
      // Quantised operands would be kept too; there are none in training yet.
      {"minimal_with_quantization", kKeep, {}},
      {"minimal_with_context_and_quantization", kKeep, {"context"}},
      {"save_dot_with_context_except_mlp", kRecompute, with(qkv, {"context", "out_proj"})},
      {"save_dot_except_mlpwi", kRecompute, with(qkv, {"out_proj", "mlpwo"})},
      {"save_dot_except_mlp", kRecompute, with(qkv, {"out_proj"})},
      {"save_qkv_proj", kRecompute, qkv},
      {"save_out_proj", kRecompute, {"out_proj"}},
      {"qkv_proj_offloaded", kRecompute, qkv, kOffload},
      {"minimal_offloaded", kOffload, {}},
      {"custom", kRecompute, {}},
      {"auto", kRecompute, {}},
  };
  return rows;
}

RematFate parse_fate(const std::string& word, const std::string& entry) {
  if (word == "device") return kKeep;
  if (word == "offload") return kOffload;
  if (word == "remat") return kRecompute;
  throw UserError("remat policy: '" + entry + "': expected device, offload or remat behind '='" +
                  did_you_mean(word, {"device", "offload", "remat"}));
}

void add_custom(const std::string& entry, RematPolicy& policy) {
  const size_t equal = entry.find('=');
  const RematName name{entry.substr(0, equal), equal == std::string::npos ? kKeep : parse_fate(entry.substr(equal + 1), entry)};
  if (name.name == "decoder_layer_input") {
    if (name.fate == kRecompute)
      throw UserError("remat policy: '" + entry + "': what enters a layer is not made again; expected device or offload");
    policy.layer_inputs = name.fate;
    return;
  }
  policy.names.push_back(name);
}

}  // namespace

std::vector<std::string> remat_policies() {
  std::vector<std::string> kinds;
  for (const PolicyRow& row : table()) {
    if (std::string(row.kind) != "custom") kinds.emplace_back(row.kind);
  }
  return kinds;
}

RematPolicy parse_remat(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const auto& rows = table();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const PolicyRow& r) { return kind == r.kind; });
  if (row == rows.end()) {
    std::vector<std::string> known = remat_policies();
    std::string listed;
    for (const std::string& name : known) listed += name + ", ";
    known.emplace_back("custom");
    throw UserError("unknown remat policy '" + kind + "'" + did_you_mean(kind, known) + "; expected " + listed + "or custom:NAME,NAME");
  }
  RematPolicy policy{.kind = kind, .products = row->products, .layer_inputs = kKeep, .names = {}};
  for (const char* name : row->names) policy.names.push_back({name, row->fate});
  if (colon != std::string::npos) {
    if (kind != "custom") throw UserError("remat policy '" + text + "': only custom takes names");
    for (size_t at = colon + 1; at <= text.size();) {
      const size_t comma = std::min(text.find(',', at), text.size());
      if (comma > at) add_custom(text.substr(at, comma - at), policy);
      at = comma + 1;
    }
  }
  if (kind == "custom" && policy.names.empty() && policy.layer_inputs == kKeep)
    throw UserError("remat policy custom names nothing; expected for example custom:query_proj,context=offload");
  return policy;
}

}  // namespace mw
