// The scopes that model code gives, as passes may rely on them.
//
//   embedding                      look-up of the tokens; position_embedding that of learned positions
//   layers.3.input_norm            its operand is the residual stream that enters layer 3
//   layers.3.attention.query       .key .value (projection, norm and rotation), .context, .out
//   layers.3.residual              after attention
//   layers.3.post_attention_norm
//   layers.3.mlp.gate              .up .activation .down; of a mixture of experts also .router .dispatch .combine .shared
//   layers.3.output                the residual stream that leaves layer 3
//   final_norm, head, loss
//
// The last forward op of a scope makes the value that the scope is named after. A second model in one Program has a prefix
// ("reference.layers.3.mlp.gate").
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace mw {

struct LayerScope {
  int64_t layer;
  std::string_view part;  // what follows the number: "attention.query", or "" for the layer itself
};

// "layers.3.attention.query" -> {3, "attention.query"}; nothing for a scope outside the layers.
std::optional<LayerScope> parse_layer_scope(std::string_view scope);

// Names of rematerialisation policies and the values they mean. A name with several rows means what they mean together.
enum class LayerKind : uint8_t { kAny, kDense, kExperts };
struct ActivationName {
  std::string_view name;
  std::string_view part;               // of the layer's scope
  LayerKind layers = LayerKind::kAny;  // those without, or with, a router
  bool is_operand = false;             // the first operand of the scope's first op instead of the last op's result
};

inline constexpr ActivationName kActivationNames[] = {
    {"decoder_layer_input", "input_norm", LayerKind::kAny, true},
    {"query_proj", "attention.query"},
    {"key_proj", "attention.key"},
    {"value_proj", "attention.value"},
    {"kv_proj", "attention.key"},
    {"kv_proj", "attention.value"},
    {"qkv_proj", "attention.qkv"},
    {"qkv_proj", "attention.query"},
    {"qkv_proj", "attention.key"},
    {"qkv_proj", "attention.value"},
    {"query_wa_proj", "attention.query.low_rank"},
    {"kv_wa_proj", "attention.latent"},
    {"mla_q", "attention.query"},
    {"mla_kv", "attention.key"},
    {"mla_kv", "attention.value"},
    {"context", "attention.context"},
    {"attention_out", "attention.context"},
    {"out_proj", "attention.out"},
    {"attention_residual", "residual"},
    {"mlpwi", "mlp.gate", LayerKind::kDense},
    {"mlpwi", "mlp.up", LayerKind::kDense},
    {"mlpwi", "mlp.shared.gate"},
    {"mlpwi", "mlp.shared.up"},
    {"mlpwi_0", "mlp.gate", LayerKind::kDense},
    {"mlpwi_0", "mlp.shared.gate"},
    {"mlpwi_1", "mlp.up", LayerKind::kDense},
    {"mlpwi_1", "mlp.shared.up"},
    {"mlpact", "mlp.activation"},
    {"mlpact", "mlp.shared.activation"},
    {"mlpwo", "mlp.down", LayerKind::kDense},
    {"mlpwo", "mlp.shared.down"},
    {"moe_mlpwi_0", "mlp.gate", LayerKind::kExperts},
    {"moe_mlpwi_1", "mlp.up", LayerKind::kExperts},
    {"moe_mlpwo", "mlp.down", LayerKind::kExperts},
};

}  // namespace mw
