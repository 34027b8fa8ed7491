#include "models/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/registry.h"

namespace mw {
namespace {

class Checker {
 public:
  explicit Checker(const ModelConfig& config) : config_(config) {}

  template <typename... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) throw UserError("model '" + config_.name + "': " + concat_text(parts...));
  }

  void at_least_one(const char* field, int64_t value) const { require(value >= 1, field, " is ", value, "; expected 1 or more"); }

  void one_of(const char* field, const std::string& value, const std::vector<std::string>& choices) const {
    std::string listed;
    for (const std::string& choice : choices) listed += (listed.empty() ? "'" : ", '") + choice + "'";
    require(std::find(choices.begin(), choices.end(), value) != choices.end(), field, " is '", value, "'; expected one of ", listed,
            did_you_mean(value, choices));
  }

 private:
  const ModelConfig& config_;
};

void check_sizes(const ModelConfig& c, const Checker& check) {
  check.at_least_one("embedding_dim", c.embedding_dim);
  check.at_least_one("mlp_dim", c.mlp_dim);
  check.at_least_one("num_layers", c.num_layers);
  check.at_least_one("num_query_heads", c.num_query_heads);
  check.at_least_one("num_kv_heads", c.num_kv_heads);
  check.at_least_one("head_dim", c.head_dim);
  check.at_least_one("vocab_size", c.vocab_size);
  check.at_least_one("max_position_embeddings", c.max_position_embeddings);
  if (c.num_query_heads % c.num_kv_heads != 0) {
    const int64_t lower = c.num_query_heads / c.num_kv_heads * c.num_kv_heads;
    check.require(false, "num_kv_heads (", c.num_kv_heads, ") does not divide num_query_heads (", c.num_query_heads,
                  "); the nearest num_query_heads are ", lower > 0 ? std::to_string(lower) + " and " : "", lower + c.num_kv_heads);
  }
  check.require(c.head_dim % 2 == 0, "head_dim is ", c.head_dim,
                "; rope turns pairs, so it is even: ", c.head_dim - 1 > 0 ? std::to_string(c.head_dim - 1) + " or " : "", c.head_dim + 1);
  check.require(c.sliding_window >= 0, "sliding_window is ", c.sliding_window, "; expected null or 1 or more");
}

void check_choices(const ModelConfig& c, const Checker& check) {
  check.one_of("activation", c.activation, {"silu", "gelu_tanh", "gelu_erf", "relu"});
  check.one_of("rope.scaling.kind", c.rope.scaling.kind, {"none", "linear", "llama3"});
  check.one_of("rope.pair_layout_in_hf_weights", c.rope.pair_layout_in_hf_weights, {"half_split", "interleaved"});
  check.require(c.norm_epsilon > 0 && c.norm_epsilon < 1, "norm_epsilon is ", c.norm_epsilon, "; expected more than 0 and less than 1");
  check.require(c.rope.theta > 1 && std::isfinite(c.rope.theta), "rope.theta is ", c.rope.theta,
                "; expected more than 1, usually 10000 to 1000000");
  check.require(!c.attention_scale || (*c.attention_scale > 0 && std::isfinite(*c.attention_scale)),
                "attention_scale is not more than 0; null means 1/sqrt(head_dim)");
  const RopeScaling& s = c.rope.scaling;
  if (s.kind == "none") return;
  check.require(s.factor >= 1 && std::isfinite(s.factor), "rope.scaling.factor is ", s.factor, "; expected 1 or more");
  if (s.kind != "llama3") return;
  check.require(s.low_frequency_factor > 0, "rope.scaling.low_frequency_factor is ", s.low_frequency_factor, "; expected more than 0");
  check.require(s.high_frequency_factor > s.low_frequency_factor, "rope.scaling.high_frequency_factor (", s.high_frequency_factor,
                ") is not above low_frequency_factor (", s.low_frequency_factor, ")");
  check.at_least_one("rope.scaling.original_max_position_embeddings", s.original_max_position_embeddings);
}

// What a family's class in transformers can express; anything else could be trained but not saved.
void check_family(const ModelConfig& c, const Checker& check) {
  const ModelFamily& family = model_family(c.family);
  check.require(family.has_qk_norm == c.qk_norm.has_value(), "qk_norm is ", c.qk_norm ? "set" : "null", ", but the family '", c.family,
                "' ", family.has_qk_norm ? "always" : "never", " has it; use the family '", family.has_qk_norm ? "llama" : "qwen3", "'");
  check.require(!c.qk_norm || c.qk_norm->epsilon == c.norm_epsilon, "qk_norm.epsilon differs from norm_epsilon; ", family.hf_architecture,
                " has one epsilon for all norms");
  check.require(family.has_window || c.sliding_window == 0, "sliding_window is ", c.sliding_window, ", but the family '", c.family,
                "' has no window; use the family 'mistral'");
  check.require(family.has_attention_bias || !(c.bias.qkv || c.bias.attention_output),
                "bias.qkv or bias.attention_output is true, but the family '", c.family,
                "' has no bias in attention; use the family 'llama'");
  check.require(c.bias.qkv == c.bias.attention_output, "bias.qkv and bias.attention_output differ, but ", family.hf_architecture,
                " has one attention_bias for both");
  check.require(family.has_mlp_bias || !c.bias.mlp, "bias.mlp is true, but the family '", c.family,
                "' has no bias in the mlp; use the family 'llama'");
  check.require(!family.heads_divide_embedding || c.embedding_dim % c.num_query_heads == 0, "num_query_heads (", c.num_query_heads,
                ") does not divide embedding_dim (", c.embedding_dim, "), which ", family.hf_architecture,
                " demands whatever head_dim is; the nearest embedding_dim is ",
                std::max<int64_t>(1, (c.embedding_dim + c.num_query_heads / 2) / c.num_query_heads) * c.num_query_heads);
  check.require(c.rope.pair_layout_in_hf_weights == "half_split", "rope.pair_layout_in_hf_weights is 'interleaved', but ",
                family.hf_architecture, " pairs halves: 'half_split'");
  check.require(c.hf_architecture == family.hf_architecture, "hf_architecture is '", c.hf_architecture, "', but the family '", c.family,
                "' is '", family.hf_architecture, "'");
  check.require(c.hf_model_type == family.hf_model_type, "hf_model_type is '", c.hf_model_type, "', but the family '", c.family, "' is '",
                family.hf_model_type, "'");
}

}  // namespace

double ModelConfig::softmax_scale() const { return attention_scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim))); }

void check_model_config(ModelConfig& config) {
  const ModelFamily& family = model_family(config.family);
  if (config.hf_architecture.empty()) config.hf_architecture = family.hf_architecture;
  if (config.hf_model_type.empty()) config.hf_model_type = family.hf_model_type;
  const Checker check(config);
  check_sizes(config, check);
  check_choices(config, check);
  check_family(config, check);
}

}  // namespace mw
