#include "config/model_config_json.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "config/model_lookup.h"
#include "runner.h"
#include "temporary_folder.h"

namespace mw {
namespace {

using nlohmann::json;

const std::string kFolder = "configs/models";

ModelConfig tiny() { return find_model_config("tiny", kFolder); }

template <typename... Parts>
void expect_refused(const json& overrides, const Parts&... parts) {
  ModelConfig config = tiny();
  EXPECT_ERROR(UserError, { override_model_config(config, overrides); }, parts...);
  EXPECT(config == tiny());  // untouched
}

ModelConfig with(const std::string& name, const json& overrides) {
  ModelConfig config = find_model_config(name, kFolder);
  override_model_config(config, overrides);
  return config;
}

}  // namespace

TEST(config, every_model_reads_back_what_it_writes) {
  for (const std::string& name : model_names(kFolder)) {
    const ModelConfig config = find_model_config(name, kFolder);
    EXPECT(parse_model_config(model_config_text(config), name) == config);
  }
  const ModelConfig llama = find_model_config("llama3.1-8b", kFolder);
  EXPECT_EQ(llama.rope.scaling.kind, "llama3");
  EXPECT_EQ(llama.rope.scaling.factor, 8.0);
  EXPECT_EQ(llama.rope.theta, 500000.0);
  EXPECT_NEAR(llama.softmax_scale(), 0.08838834764831845, 1e-15);
  EXPECT_EQ(find_model_config("llama3.3-70b", kFolder).eos_token_ids.size(), 3u);
}

TEST(config, overrides_take_nested_dotted_and_foreign_names) {
  EXPECT_EQ(with("qwen3-0.6b", {{"num_layers", 2}}).num_layers, 2);
  EXPECT_EQ(with("qwen3-0.6b", {{"num_hidden_layers", 3}, {"rope_theta", 1e4}}).num_layers, 3);
  EXPECT_EQ(with("tiny", {{"rope.theta", 5e5}}).rope.theta, 5e5);
  EXPECT_EQ(with("tiny", {{"rope.scaling.kind", "linear"}, {"rope.scaling.factor", 4}}).rope.scaling.factor, 4.0);
  const ModelConfig nested = with("tiny", {{"rope", {{"scaling", {{"kind", "linear"}, {"factor", 2}}}}}});
  EXPECT_EQ(nested.rope.scaling.kind, "linear");
  EXPECT_EQ(nested.rope.theta, 10000.0);
  EXPECT_EQ(with("qwen3-0.6b", {{"norm_epsilon", 1e-5}}).qk_norm->epsilon, 1e-5);
  EXPECT_EQ(with("mistral-7b-v0.1", {{"sliding_window", nullptr}}).attention_pattern.sliding_window, 0);
  EXPECT_EQ(*with("tiny", {{"attention_scale", "256^-0.5"}}).attention_scale, 0.0625);
  const ModelConfig other = with("tiny", {{"family", "mistral"}, {"sliding_window", 8}});
  EXPECT_EQ(other.hf_architecture, "MistralForCausalLM");
}

TEST(config, wrong_fields_are_refused_with_what_was_expected) {
  expect_refused({{"num_layer", 2}}, "overrides: unknown key 'num_layer'", "did you mean 'num_layers'?");
  expect_refused({{"num_layers", "two"}}, "overrides: num_layers: expected an integer from 1 to 10000, found \"two\"");
  expect_refused({{"num_layers", 2.5}}, "expected an integer", "found 2.5");
  expect_refused({{"num_layers", 0}}, "expected an integer from 1", "found 0");
  expect_refused({{"vocab_size", 18446744073709551615u}}, "vocab_size: expected an integer", "found 18446744073709551615");
  expect_refused({{"tie_embeddings", 1}}, "tie_embeddings: expected true or false, found 1");
  expect_refused({{"activation", "silo"}}, "expected one of 'silu'", "found 'silo' (did you mean 'silu'?)");
  expect_refused({{"norm_epsilon", -1}}, "norm_epsilon: expected a number from");
  expect_refused({{"rope", {{"thetta", 1e4}}}}, "overrides: rope: unknown key 'thetta' (did you mean 'theta'?)");
  expect_refused({{"rope.scaling.kind", "yarm"}}, "rope.scaling.kind: expected one of 'none', 'linear', 'llama3', 'yarn', found 'yarm'");
  expect_refused({{"rope", 5}}, "rope: expected an object {...}, found 5");
  expect_refused({{"attention_scale", "head_dim^-1"}}, "attention_scale: expected null, a number above 0");
  expect_refused({{"family", "lama"}}, "there is no model family 'lama' (did you mean 'llama'?)");
  expect_refused({{"eos_token_id", {1, -5}}}, "eos_token_id.1: expected an integer from 0");
}

TEST(config, fields_that_do_not_fit_together_are_refused) {
  expect_refused({{"num_kv_heads", 3}}, "num_kv_heads (3) does not divide num_query_heads (4)", "nearest num_query_heads are 3 and 6");
  expect_refused({{"head_dim", 15}}, "head_dim is 15", "14 or 16");
  expect_refused({{"embedding_dim", 66}}, "num_query_heads (4) does not divide embedding_dim (66)", "nearest embedding_dim is 68");
  expect_refused({{"sliding_window", 8}}, "the family 'llama' has no window", "'mistral'");
  expect_refused({{"qk_norm", {{"epsilon", 1e-5}}}}, "the family 'llama' never has it", "'qwen3'");
  expect_refused({{"family", "qwen3"}}, "qk_norm is null, but the family 'qwen3' always has it");
  expect_refused({{"bias", {{"qkv", true}}}}, "bias.qkv and bias.attention_output differ");
  expect_refused({{"family", "mistral"}, {"bias", {{"mlp", true}}}}, "has no bias in the mlp");
  expect_refused({{"rope", {{"scaling", {{"kind", "llama3"}, {"factor", 8}, {"low_frequency_factor", 5}}}}}},
                 "high_frequency_factor (4) is below low_frequency_factor (5)");
  expect_refused({{"rope.pair_layout_in_hf_weights", "interleaved"}}, "LlamaForCausalLM pairs halves");
}

TEST(config, our_files_are_read_strictly) {
  json object = json::parse(model_config_text(tiny()));
  object.erase("num_layers");
  EXPECT_ERROR(UserError, { model_config_from_json(object, "a.json"); }, "a.json: the key 'num_layers' is missing");
  object["num_layer"] = 2;
  EXPECT_ERROR(
      UserError, { model_config_from_json(object, "a.json"); }, "the key 'num_layers' is missing", "is 'num_layer' meant to be it?");
  object["num_layers"] = 2;
  EXPECT_ERROR(UserError, { model_config_from_json(object, "a.json"); }, "a.json: unknown key 'num_layer'");
  EXPECT_ERROR(UserError, { parse_model_config("[1, 2]", "a.json"); }, "a.json: expected an object {...}, found [1,2]");
  EXPECT_ERROR(UserError, { parse_model_config("{\"family\": }", "a.json"); }, "a.json, line 1");
}

TEST(config, models_are_found_by_name_repository_and_path) {
  EXPECT_EQ(find_model_config("qwen/QWEN3-0.6b", kFolder).name, "qwen3-0.6b");
  EXPECT_EQ(find_model_config("mistralai/Mistral-7B-v0.1", kFolder).attention_pattern.sliding_window, 4096);
  EXPECT_EQ(find_model_config("configs/models/tiny.json", kFolder).name, "tiny");
  EXPECT_ERROR(UserError, { find_model_config("qwen3-0.7b", kFolder); }, "there is no model 'qwen3-0.7b' (did you mean 'qwen3-0.6b'?)");
  EXPECT_ERROR(UserError, { find_model_config("meta-llama/Llama-3.1-8Bs", kFolder); }, "did you mean 'meta-llama/Llama-3.1-8B'?");
  const TemporaryFolder folder;
  EXPECT_ERROR(UserError, { find_model_config(folder.path, kFolder); }, "config.json", "No such file");
  put_file(folder / "config.json", model_config_text(tiny()));
  EXPECT_EQ(find_model_config(folder.path, kFolder).num_layers, 2);
}

}  // namespace mw
