// DeepseekV2ForCausalLM, DeepseekV3ForCausalLM.
#include "base/error.h"
#include "config/huggingface_tables.h"

namespace mw {
namespace {

using nlohmann::json;

ModelConfig deepseek2_defaults() {
  ModelConfig c;
  c.max_position_embeddings = 2048;
  c.norm_epsilon = 1e-6;
  c.bos_token_id = 1;
  c.eos_token_ids = {2};
  c.rope.pair_layout_in_hf_weights = "interleaved";
  c.moe_mlp_dim = 1407;
  c.mla = MlaConfig{.q_lora_rank = 1536, .kv_lora_rank = 512, .qk_nope_head_dim = 128, .qk_rope_head_dim = 64, .v_head_dim = 128};
  c.moe = MoeConfig{.num_experts = 64, .num_shared_experts = 2};
  return c;
}

ModelConfig deepseek3_defaults() {
  ModelConfig c = deepseek2_defaults();
  c.max_position_embeddings = 4096;
  c.bos_token_id = 0;
  c.eos_token_ids = {1};
  c.moe_mlp_dim = 2048;
  c.mtp_layers = 1;
  c.moe = MoeConfig{.num_experts = 256,
                    .experts_per_token = 8,
                    .num_shared_experts = 1,
                    .first_dense_layers = 3,
                    .routing_score = "sigmoid",
                    .routing_selection_bias = true,
                    .normalize_topk_weights = true,
                    .routed_scaling_factor = 2.5,
                    .num_expert_groups = 8,
                    .groups_selected = 4,
                    .group_score = "top2_sum"};
  return c;
}

void read_latent(ModelConfig& config, const json&, const JsonPlace&) {
  config.head_dim = config.mla->qk_nope_head_dim + config.mla->qk_rope_head_dim;
  config.moe->shared_expert_mlp_dim = config.moe->num_shared_experts * config.moe_mlp_dim;
}

void read_deepseek2(ModelConfig& config, const json& object, const JsonPlace& place) {
  read_latent(config, object, place);
  const json* method = present_json(object, "topk_method");
  const bool greedy = !method || json_choice(*method, place.at("topk_method"), {"greedy", "group_limited_greedy"}) == "greedy";
  if (greedy) config.moe->num_expert_groups = config.moe->groups_selected = 1;
}

void write_latent(json& out, const ModelConfig& config) {
  const MoeConfig& moe = *config.moe;
  out["q_lora_rank"] = config.mla->q_lora_rank > 0 ? json(config.mla->q_lora_rank) : json(nullptr);
  out["moe_layer_freq"] = 1;
  out["aux_loss_alpha"] = moe.load_balance_loss_weight;
  out.erase("head_dim");  // its own in the class: the part with rope
}

void write_deepseek2(json& out, const ModelConfig& config) {
  write_latent(out, config);
  out["scoring_func"] = "softmax";
  out["topk_method"] = config.moe->num_expert_groups == 1 ? "greedy" : "group_limited_greedy";
  out["norm_topk_prob"] = false;
}

void write_deepseek3(json& out, const ModelConfig& config) {
  write_latent(out, config);
  out["scoring_func"] = "sigmoid";
  out["topk_method"] = "noaux_tc";
  out["rope_interleave"] = true;
  out["num_nextn_predict_layers"] = config.mtp_layers;
}

}  // namespace

std::vector<HuggingFaceTable> deepseek_tables() {
  HuggingFaceFields fields = decoder_keys({{"moe_intermediate_size", "moe_mlp_dim"},
                                           {"n_routed_experts", "moe.num_experts"},
                                           {"num_experts_per_tok", "moe.experts_per_token"},
                                           {"n_shared_experts", "moe.num_shared_experts"},
                                           {"first_k_dense_replace", "moe.first_dense_layers"},
                                           {"routed_scaling_factor", "moe.routed_scaling_factor"},
                                           {"n_group", "moe.num_expert_groups"},
                                           {"topk_group", "moe.groups_selected"},
                                           {"output_router_logits", "moe.output_router_logits"},
                                           {"q_lora_rank", "mla.q_lora_rank"},
                                           {"kv_lora_rank", "mla.kv_lora_rank"},
                                           {"qk_nope_head_dim", "mla.qk_nope_head_dim"},
                                           {"qk_rope_head_dim", "mla.qk_rope_head_dim"},
                                           {"v_head_dim", "mla.v_head_dim"}});
  fields.erase("head_dim");
  const HuggingFaceFields aliases{
      {"num_experts", "moe.num_experts"}, {"num_local_experts", "moe.num_experts"}, {"aux_loss_alpha", "moe.load_balance_loss_weight"}};
  HuggingFaceFields fields3 = fields, aliases3 = aliases;
  fields3["norm_topk_prob"] = "moe.normalize_topk_weights";
  fields3["num_nextn_predict_layers"] = aliases3["num_mtp_layers"] = "mtp_layers";
  std::vector<std::string> required{"hidden_size",         "intermediate_size", "num_hidden_layers",
                                    "num_attention_heads", "vocab_size",        "num_experts_per_tok"};
  // Whether the balance loss is taken per sequence is a setting of training.
  const std::vector<std::string> without_meaning{"head_dim", "qk_head_dim", "seq_aux"};
  return {
      {.family = "deepseek2",
       .fields = fields,
       .aliases = aliases,
       .defaults = deepseek2_defaults(),
       .required = required,
       .read_together = {"topk_method"},
       .without_meaning = without_meaning,
       .always = {{"scoring_func", "softmax"}, {"moe_layer_freq", 1}, {"norm_topk_prob", false}, {"mlp_bias", false}},
       .read = read_deepseek2,
       .write = write_deepseek2},
      {.family = "deepseek3",
       .fields = fields3,
       .aliases = aliases3,
       .defaults = deepseek3_defaults(),
       .without_meaning = without_meaning,
       .always = {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}, {"moe_layer_freq", 1}, {"rope_interleave", true}},
       .read = read_latent,
       .write = write_deepseek3},
  };
}

}  // namespace mw
