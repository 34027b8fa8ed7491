#include "config/huggingface_tables.h"

#include "base/error.h"

namespace mw {

const HuggingFaceTable& huggingface_table(const std::string& family) {
  static const std::vector<HuggingFaceTable> tables = [] {
    std::vector<HuggingFaceTable> all;
    for (const auto& some : {llama_tables(), gemma_tables(), deepseek_tables(), gpt_tables()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }();
  for (const HuggingFaceTable& table : tables) {
    if (table.family == family) return table;
  }
  throw InternalError("the family '" + family + "' has no table of Hugging Face keys");
}

HuggingFaceFields decoder_keys(const HuggingFaceFields& more) {
  HuggingFaceFields keys{
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
      {"rope_theta", "rope.theta"},
      {"bos_token_id", "bos_token_id"},
      {"eos_token_id", "eos_token_id"},
      {"pad_token_id", "pad_token_id"},
  };
  for (const auto& [key, field] : more) keys[key] = field;
  return keys;
}

const nlohmann::json* present_json(const nlohmann::json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const std::vector<std::string>& huggingface_keys_without_meaning() {
  static const std::vector<std::string> keys{
      "_attn_implementation",
      "_attn_implementation_autoset",
      "_commit_hash",
      "_from_auto",
      "_name_or_path",
      "_num_labels",
      "attention_dropout",
      "attn_implementation",
      "auto_map",
      "bad_words_ids",
      "begin_suppress_tokens",
      "cache_implementation",
      "chunk_size_feed_forward",
      "cross_attention_hidden_size",
      "decoder_start_token_id",
      "diversity_penalty",
      "do_sample",
      "early_stopping",
      "encoder_no_repeat_ngram_size",
      "ep_size",
      "exponential_decay_length_penalty",
      "finetuning_task",
      "for_llm_compressor",
      "forced_bos_token_id",
      "forced_eos_token_id",
      "gradient_checkpointing",
      "id2label",
      "initial_context_length",
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

}  // namespace mw
