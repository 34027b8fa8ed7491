#include "ir/dim_names.h"

#include <algorithm>

namespace mw {

const std::vector<std::string>& standard_dims() {
  static const std::vector<std::string> names{
      "batch", "seq", "kv_seq", "embed", "vocab", "kv_heads", "q_per_kv", "heads", "head_dim", "mlp", "experts", "expert_mlp",
      "expert_rows", "expert_counts", "gate_up", "q_lora", "kv_lora", "rope_dim", "nope_dim", "value_dim", "lora_rank", "image", "patch",
      "vision_embed", "vision_mlp", "tokens", "page", "slot", "positions", "top", "layers", "classes", "pair", "top_k", "qkv", "mtp_in",
      // of multi-head latent attention: the latent's rows then those of the rotated key; per head the key's rows then the value's
      "kv_lora_rope", "nope_value"};
  return names;
}

bool is_standard_dim(std::string_view name) {
  const auto& names = standard_dims();
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace mw
