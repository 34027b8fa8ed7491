// The scopes that model code gives, as passes may rely on them.
//
//   embedding                      look-up of the tokens
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
#include <array>
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

// Names of rematerialisation policies and the values they mean.
struct ActivationName {
  std::string_view name;
  std::string_view part;    // of the layer's scope
  bool is_operand = false;  // the first operand of the scope's first op instead of the last op's result
};

inline constexpr std::array<ActivationName, 11> kActivationNames{{
    {"decoder_layer_input", "input_norm", true},
    {"query_proj", "attention.query"},
    {"key_proj", "attention.key"},
    {"value_proj", "attention.value"},
    {"context", "attention.context"},
    {"out_proj", "attention.out"},
    {"attention_residual", "residual"},
    {"mlpwi_0", "mlp.gate"},
    {"mlpwi_1", "mlp.up"},
    {"mlpact", "mlp.activation"},
    {"mlpwo", "mlp.down"},
}};

}  // namespace mw
