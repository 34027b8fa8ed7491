#include "config/huggingface_tables.h"

#include "base/error.h"

namespace mw {
namespace {

// LlamaForCausalLM; Mistral and Qwen3 spell theirs alike.
const std::map<std::string, std::string>& llama_keys() {
  static const std::map<std::string, std::string> keys{
      {"hidden_size", "embedding_dim"},
      {"intermediate_size", "mlp_dim"},
      {"num_hidden_layers", "num_layers"},
      {"num_attention_heads", "num_query_heads"},
      {"num_key_value_heads", "num_kv_heads"},
      {"head_dim", "head_dim"},
      {"vocab_size", "vocab_size"},
      {"max_position_embeddings", "max_position_embeddings"},
      {"rms_norm_eps", "norm_epsilon"},
      {"tie_word_embeddings", "tie_embeddings"},
      {"mlp_bias", "bias.mlp"},
      {"rope_theta", "rope.theta"},
      {"sliding_window", "attention_pattern.sliding_window"},
      {"bos_token_id", "bos_token_id"},
      {"eos_token_id", "eos_token_id"},
      {"pad_token_id", "pad_token_id"},
  };
  return keys;
}

// A default of 0 for num_kv_heads means num_attention_heads, for head_dim hidden_size / num_attention_heads.
ModelConfig llama_defaults() {
  ModelConfig c;
  c.max_position_embeddings = 2048;
  c.norm_epsilon = 1e-6;
  c.bos_token_id = 1;
  c.eos_token_ids = {2};
  return c;
}

ModelConfig mistral_defaults() {
  ModelConfig c = llama_defaults();
  c.num_kv_heads = 8;
  c.max_position_embeddings = 131072;
  c.attention_pattern.sliding_window = 4096;
  return c;
}

ModelConfig qwen3_defaults() {
  ModelConfig c;
  c.num_kv_heads = 32;
  c.head_dim = 128;
  c.max_position_embeddings = 32768;
  c.norm_epsilon = 1e-6;
  c.qk_norm = QkNorm{};
  c.attention_pattern.sliding_window = 4096;
  return c;
}

}  // namespace

const HuggingFaceTable& huggingface_table(const std::string& family) {
  static const std::vector<HuggingFaceTable> tables{
      {"llama", llama_keys(), llama_defaults()}, {"mistral", llama_keys(), mistral_defaults()}, {"qwen3", llama_keys(), qwen3_defaults()}};
  for (const HuggingFaceTable& table : tables) {
    if (table.family == family) return table;
  }
  throw InternalError("the family '" + family + "' has no table of Hugging Face keys");
}

const std::vector<std::string>& huggingface_keys_read_together() {
  static const std::vector<std::string> keys{"model_type",  "architectures",      "hidden_act",        "attention_bias",
                                             "dtype",       "torch_dtype",        "rope_scaling",      "rope_parameters",
                                             "layer_types", "use_sliding_window", "max_window_layers", "sliding_window"};
  return keys;
}

const std::vector<std::string>& huggingface_keys_without_meaning() {
  static const std::vector<std::string> keys{
      "_attn_implementation",
      "_attn_implementation_autoset",
      "_commit_hash",
      "_from_auto",
      "_name_or_path",
      "add_cross_attention",
      "attention_dropout",
      "attn_implementation",
      "auto_map",
      "bad_words_ids",
      "begin_suppress_tokens",
      "chunk_size_feed_forward",
      "cross_attention_hidden_size",
      "decoder_start_token_id",
      "diversity_penalty",
      "do_sample",
      "early_stopping",
      "encoder_no_repeat_ngram_size",
      "exponential_decay_length_penalty",
      "finetuning_task",
      "forced_bos_token_id",
      "forced_eos_token_id",
      "id2label",
      "initializer_range",
      "is_decoder",
      "is_encoder_decoder",
      "label2id",
      "length_penalty",
      "max_length",
      "min_length",
      "no_repeat_ngram_size",
      "num_beam_groups",
      "num_beams",
      "num_return_sequences",
      "output_attentions",
      "output_hidden_states",
      "output_scores",
      "prefix",
      "pretraining_tp",
      "problem_type",
      "pruned_heads",
      "remove_invalid_values",
      "repetition_penalty",
      "return_dict",
      "return_dict_in_generate",
      "sep_token_id",
      "suppress_tokens",
      "task_specific_params",
      "temperature",
      "tf_legacy_loss",
      "tie_encoder_decoder",
      "tokenizer_class",
      "top_k",
      "top_p",
      "torchscript",
      "transformers_version",
      "typical_p",
      "use_bfloat16",
      "use_cache",
  };
  return keys;
}

const std::map<std::string, std::string>& huggingface_activations() {
  static const std::map<std::string, std::string> names{
      {"silu", "silu"}, {"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu", "gelu_erf"}, {"relu", "relu"}};
  return names;
}

}  // namespace mw
