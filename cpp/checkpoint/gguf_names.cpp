// Which Hugging Face tensor each tensor of a GGUF file is, and how its elements stand in it: one table per architecture.
#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_model.h"

namespace mw {
namespace {

enum class How {
  kSame,
  kQueryRows,         // [heads x (head_dim / 2, 2), d] as [heads x (2, head_dim / 2), d]
  kKeyRows,           // the same with the number of key heads
  kLessOne,           // w + 1 as w
  kExchanged,         // [..., out, in] as [..., in, out]
  kExperts,           // [E, out, in] as E tensors [out, in]; '@' in the name is the expert
  kGateUpColumns,     // two [E, m, d] as one [E, d, 2 m], columns taken in turn
  kGateUpHalves,      // two [E, m, d] as one [E, d, 2 m], one after the other
  kGateUpBiases,      // two [E, m] as one [E, 2 m], elements taken in turn
  kKeyValueOfLatent,  // [H, kl, n] and [H, v, kl] as [H (n + v), kl]
  kTaken,             // read with its partner, or not at all
};

// `gguf` is a whole name, or one without its ".weight" or ".bias", which then goes over to `huggingface`. '#' is the layer.
struct Rule {
  std::string_view gguf, huggingface;
  How how = How::kSame;
};
using Rules = std::vector<Rule>;

Rules operator+(Rules a, const Rules& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Rules ends(How norm = How::kSame) {
  return {{"token_embd.weight", "model.embed_tokens.weight"},
          {"output_norm.weight", "model.norm.weight", norm},
          {"output.weight", "lm_head.weight"}};
}

Rules attention(How query = How::kSame, How key = How::kSame, How norm = How::kSame) {
  return {{"blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight", norm},
          {"blk.#.attn_q", "model.layers.#.self_attn.q_proj", query},
          {"blk.#.attn_k", "model.layers.#.self_attn.k_proj", key},
          {"blk.#.attn_v", "model.layers.#.self_attn.v_proj"},
          {"blk.#.attn_output", "model.layers.#.self_attn.o_proj"}};
}

Rules head_norms(How norm = How::kSame) {
  return {{"blk.#.attn_q_norm.weight", "model.layers.#.self_attn.q_norm.weight", norm},
          {"blk.#.attn_k_norm.weight", "model.layers.#.self_attn.k_norm.weight", norm}};
}

Rules mlp() {
  return {{"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
          {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
          {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"}};
}

Rules mlp_norm(How norm = How::kSame) { return {{"blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight", norm}}; }

Rules four_norms() {
  return {{"blk.#.post_attention_norm.weight", "model.layers.#.post_attention_layernorm.weight", How::kLessOne},
          {"blk.#.ffn_norm.weight", "model.layers.#.pre_feedforward_layernorm.weight", How::kLessOne},
          {"blk.#.post_ffw_norm.weight", "model.layers.#.post_feedforward_layernorm.weight", How::kLessOne}};
}

Rules experts() {
  return {{"blk.#.ffn_gate_inp.weight", "model.layers.#.mlp.gate.weight"},
          {"blk.#.ffn_gate_exps.weight", "model.layers.#.mlp.experts.@.gate_proj.weight", How::kExperts},
          {"blk.#.ffn_up_exps.weight", "model.layers.#.mlp.experts.@.up_proj.weight", How::kExperts},
          {"blk.#.ffn_down_exps.weight", "model.layers.#.mlp.experts.@.down_proj.weight", How::kExperts}};
}

Rules mixtral_experts() {
  return {{"blk.#.ffn_gate_inp.weight", "model.layers.#.block_sparse_moe.gate.weight"},
          {"blk.#.ffn_gate_exps.weight", "model.layers.#.block_sparse_moe.experts.@.w1.weight", How::kExperts},
          {"blk.#.ffn_up_exps.weight", "model.layers.#.block_sparse_moe.experts.@.w3.weight", How::kExperts},
          {"blk.#.ffn_down_exps.weight", "model.layers.#.block_sparse_moe.experts.@.w2.weight", How::kExperts}};
}

Rules deepseek_parts() {
  return {{"blk.#.attn_q_a.weight", "model.layers.#.self_attn.q_a_proj.weight"},
          {"blk.#.attn_q_a_norm.weight", "model.layers.#.self_attn.q_a_layernorm.weight"},
          {"blk.#.attn_q_b.weight", "model.layers.#.self_attn.q_b_proj.weight"},
          {"blk.#.attn_kv_a_mqa.weight", "model.layers.#.self_attn.kv_a_proj_with_mqa.weight"},
          {"blk.#.attn_kv_a_norm.weight", "model.layers.#.self_attn.kv_a_layernorm.weight"},
          {"blk.#.attn_kv_b.weight", "model.layers.#.self_attn.kv_b_proj.weight"},
          {"blk.#.attn_k_b.weight", "model.layers.#.self_attn.kv_b_proj.weight", How::kKeyValueOfLatent},
          {"blk.#.attn_v_b.weight", "", How::kTaken},
          {"blk.#.exp_probs_b.bias", "model.layers.#.mlp.gate.e_score_correction_bias"},
          {"blk.#.ffn_gate_shexp.weight", "model.layers.#.mlp.shared_experts.gate_proj.weight"},
          {"blk.#.ffn_up_shexp.weight", "model.layers.#.mlp.shared_experts.up_proj.weight"},
          {"blk.#.ffn_down_shexp.weight", "model.layers.#.mlp.shared_experts.down_proj.weight"}};
}

Rules gpt_oss_parts() {
  return {{"blk.#.attn_sinks.weight", "model.layers.#.self_attn.sinks"},
          {"blk.#.post_attention_norm.weight", "model.layers.#.post_attention_layernorm.weight"},
          {"blk.#.ffn_gate_inp", "model.layers.#.mlp.router"},
          {"blk.#.ffn_gate_exps.weight", "model.layers.#.mlp.experts.gate_up_proj", How::kGateUpColumns},
          {"blk.#.ffn_up_exps.weight", "", How::kTaken},
          {"blk.#.ffn_gate_exps.bias", "model.layers.#.mlp.experts.gate_up_proj_bias", How::kGateUpBiases},
          {"blk.#.ffn_up_exps.bias", "", How::kTaken},
          {"blk.#.ffn_down_exps.weight", "model.layers.#.mlp.experts.down_proj", How::kExchanged},
          {"blk.#.ffn_down_exps.bias", "model.layers.#.mlp.experts.down_proj_bias"}};
}

Rules llama4_parts() {
  return {{"rope_freqs.weight", "", How::kTaken},
          {"blk.#.ffn_gate.weight", "model.layers.#.feed_forward.gate_proj.weight"},
          {"blk.#.ffn_up.weight", "model.layers.#.feed_forward.up_proj.weight"},
          {"blk.#.ffn_down.weight", "model.layers.#.feed_forward.down_proj.weight"},
          {"blk.#.ffn_gate_inp.weight", "model.layers.#.feed_forward.router.weight"},
          {"blk.#.ffn_gate_exps.weight", "model.layers.#.feed_forward.experts.gate_up_proj", How::kGateUpHalves},
          {"blk.#.ffn_up_exps.weight", "", How::kTaken},
          {"blk.#.ffn_down_exps.weight", "model.layers.#.feed_forward.experts.down_proj", How::kExchanged},
          {"blk.#.ffn_gate_shexp.weight", "model.layers.#.feed_forward.shared_expert.gate_proj.weight"},
          {"blk.#.ffn_up_shexp.weight", "model.layers.#.feed_forward.shared_expert.up_proj.weight"},
          {"blk.#.ffn_down_shexp.weight", "model.layers.#.feed_forward.shared_expert.down_proj.weight"}};
}

Rules gpt2_parts() {
  return {{"token_embd.weight", "transformer.wte.weight"},
          {"position_embd.weight", "transformer.wpe.weight"},
          {"output_norm", "transformer.ln_f"},
          {"output.weight", "", How::kTaken},  // the embedding table once more
          {"blk.#.attn_norm", "transformer.h.#.ln_1"},
          {"blk.#.attn_qkv.weight", "transformer.h.#.attn.c_attn.weight", How::kExchanged},
          {"blk.#.attn_qkv.bias", "transformer.h.#.attn.c_attn.bias"},
          {"blk.#.attn_output.weight", "transformer.h.#.attn.c_proj.weight", How::kExchanged},
          {"blk.#.attn_output.bias", "transformer.h.#.attn.c_proj.bias"},
          {"blk.#.ffn_norm", "transformer.h.#.ln_2"},
          {"blk.#.ffn_up.weight", "transformer.h.#.mlp.c_fc.weight", How::kExchanged},
          {"blk.#.ffn_up.bias", "transformer.h.#.mlp.c_fc.bias"},
          {"blk.#.ffn_down.weight", "transformer.h.#.mlp.c_proj.weight", How::kExchanged},
          {"blk.#.ffn_down.bias", "transformer.h.#.mlp.c_proj.bias"}};
}

Rules rules_of(const std::string& architecture) {
  if (architecture == "llama")
    return ends() + attention(How::kQueryRows, How::kKeyRows) + mlp_norm() + mlp() + mixtral_experts() +
           Rules{{"rope_freqs.weight", "", How::kTaken}};
  if (architecture == "llama4") return ends() + attention() + mlp_norm() + llama4_parts();
  if (architecture == "qwen3") return ends() + attention() + head_norms() + mlp_norm() + mlp();
  if (architecture == "qwen3moe") return ends() + attention() + head_norms() + mlp_norm() + mlp() + experts();
  if (architecture == "gemma")
    return ends(How::kLessOne) + attention(How::kSame, How::kSame, How::kLessOne) + mlp_norm(How::kLessOne) + mlp();
  if (architecture == "gemma2" || architecture == "gemma3")
    return ends(How::kLessOne) + attention(How::kSame, How::kSame, How::kLessOne) + head_norms(How::kLessOne) + four_norms() + mlp();
  if (architecture == "deepseek2") return ends() + attention() + mlp_norm() + mlp() + experts() + deepseek_parts();
  if (architecture == "gpt-oss") return ends() + attention() + gpt_oss_parts();
  if (architecture == "gpt2") return gpt2_parts();
  throw InternalError("no names for the architecture " + architecture);  // gguf_config has refused what is not in its table
}

std::string with_number(std::string_view pattern, char sign, int64_t number) {
  std::string text(pattern);
  const size_t at = text.find(sign);
  return at == std::string::npos ? text : text.replace(at, 1, std::to_string(number));
}

// "blk.12.attn_q.weight" -> "blk.#.attn_q.weight" and 12.
struct LayerName {
  std::string pattern;
  int64_t layer = -1;
};
LayerName without_layer(const std::string& name) {
  if (!name.starts_with("blk.")) return {name, -1};
  const size_t dot = name.find('.', 4);
  LayerName found{name, -1};
  if (dot == std::string::npos || (name[4] == '0' && dot != 5)) return found;
  const auto [end, error] = std::from_chars(name.data() + 4, name.data() + dot, found.layer);
  if (error != std::errc() || end != name.data() + dot || found.layer < 0) return {name, -1};
  found.pattern = "blk.#" + name.substr(dot);
  return found;
}

class Mapper {
 public:
  explicit Mapper(const GgufFiles& files)
      : files_(files), architecture_(files.header().text("general.architecture")), rules_(rules_of(architecture_)) {}

  std::map<std::string, GgufMapped> map() {
    const int64_t num_layers = files_.header().integer(architecture_ + ".block_count");
    std::vector<std::string> unknown;
    for (const auto& [name, place] : files_.tensors()) {
      const LayerName split = without_layer(name);
      std::string suffix;
      const Rule* rule = find_rule(split.pattern, suffix);
      if (!rule || split.layer >= num_layers) {
        unknown.push_back(name);
        continue;
      }
      add(*rule, name, suffix, split.layer, place);
    }
    if (!unknown.empty()) {
      std::string listed;
      for (size_t i = 0; i < unknown.size() && i < 20; ++i)
        listed += "\n  " + printable(unknown[i]) + " " + shape_text(files_.find(unknown[i])->shape);
      if (unknown.size() > 20) listed += "\n  and " + std::to_string(unknown.size() - 20) + " more";
      throw UserError(printable(files_.path(), 1000) + ": the architecture '" + architecture_ + "' with " + std::to_string(num_layers) +
                      " layers has no such tensors:" + listed);
    }
    return std::move(mapped_);
  }

 private:
  const Rule* find_rule(const std::string& pattern, std::string& suffix) const {
    for (const Rule& rule : rules_) {
      if (rule.gguf == pattern) return &rule;
    }
    for (const std::string_view end : {".weight", ".bias"}) {
      if (!pattern.ends_with(end)) continue;
      suffix = end;
      for (const Rule& rule : rules_) {
        if (rule.gguf == std::string_view(pattern).substr(0, pattern.size() - end.size())) return &rule;
      }
    }
    return nullptr;
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const {
    throw UserError(printable(files_.path(), 1000) + ": tensor " + in_quotes(name) + " " + shape_text(files_.find(name)->shape) +
                    ": expected " + expected);
  }

  void expect_rank(const std::string& name, const GgufTensor& tensor, size_t rank) const {
    if (tensor.shape.size() != rank) refuse(name, std::to_string(rank) + " dims");
  }

  GgufPlace partner(const std::string& name, std::string_view from, std::string_view to, size_t rank) const {
    std::string other = name;
    other.replace(other.find(from), from.size(), to);
    const auto found = files_.tensors().find(other);
    if (found == files_.tensors().end()) refuse(name, "a tensor " + in_quotes(other) + " beside it");
    expect_rank(other, *found->second.tensor, rank);
    return found->second;
  }

  void put(const std::string& name, const std::string& huggingface, GgufMapped mapped) {
    if (!mapped_.emplace(huggingface, std::move(mapped)).second) refuse(name, "no other tensor to be " + in_quotes(huggingface) + " too");
  }

  void add(const Rule& rule, const std::string& name, const std::string& suffix, int64_t layer, const GgufPlace& place) {
    const GgufTensor& tensor = *place.tensor;
    const Shape& shape = tensor.shape;
    const std::string huggingface = with_number(rule.huggingface, '#', layer) + suffix;
    GgufMapped mapped{.seen = as_stored(shape), .parts = {place}};
    switch (rule.how) {
      case How::kTaken:
        return;
      case How::kSame:
        mapped.is_as_stored = true;
        break;
      case How::kQueryRows:
        mapped.seen = rope_rows(name, shape, "attention.head_count");
        break;
      case How::kKeyRows:
        mapped.seen = rope_rows(
            name, shape,
            files_.header().find(architecture_ + ".attention.head_count_kv") ? "attention.head_count_kv" : "attention.head_count");
        break;
      case How::kLessOne:
        mapped.seen.added = -1;
        break;
      case How::kExchanged:
        mapped.seen = exchanged(name, shape);
        break;
      case How::kExperts:
        return add_experts(name, huggingface, place);
      case How::kGateUpColumns:
      case How::kGateUpHalves:
        mapped = gate_up(name, place, rule.how == How::kGateUpColumns);
        break;
      case How::kGateUpBiases:
        mapped = gate_up_biases(name, place);
        break;
      case How::kKeyValueOfLatent:
        mapped = key_value_of_latent(name, place);
        break;
    }
    put(name, huggingface, std::move(mapped));
  }

  // llama.cpp turns the two halves of a head's rows into pairs; row (head, half, i) is found at (head, i, half).
  Rearranged rope_rows(const std::string& name, const Shape& shape, const char* key) const {
    const int64_t heads = files_.header().integer(architecture_ + "." + key);
    if (shape.empty() || shape.size() > 2 || heads < 1 || shape[0] / 2 % heads != 0 || shape[0] % 2 != 0)
      refuse(name, concat_text("rows in ", heads, " heads of two halves"));
    Rearranged seen = as_stored(shape);
    const int64_t row = shape.size() == 2 ? shape[1] : 1, dim = shape[0] / heads;
    seen.place = [row, dim](int64_t r) {
      const int64_t head = r / dim, in_head = r % dim, half = in_head / (dim / 2), i = in_head % (dim / 2);
      return Place{0, (head * dim + i * 2 + half) * row};
    };
    return seen;
  }

  Rearranged exchanged(const std::string& name, const Shape& shape) const {
    if (shape.size() < 2) refuse(name, "at least two dims");
    Rearranged seen = as_stored(shape);
    const size_t last = shape.size() - 1;
    std::swap(seen.shape[last], seen.shape[last - 1]);
    std::swap(seen.parts[0].strides[last], seen.parts[0].strides[last - 1]);
    return seen;
  }

  void add_experts(const std::string& name, const std::string& huggingface, const GgufPlace& place) {
    constexpr int64_t kMostExperts = 4096;
    const Shape& shape = place.tensor->shape;
    expect_rank(name, *place.tensor, 3);
    if (shape[0] > kMostExperts || shape[0] != files_.header().integer(architecture_ + ".expert_count"))
      refuse(name, concat_text("one matrix for each of ", files_.header().integer(architecture_ + ".expert_count"), " experts"));
    const Shape matrix(shape.begin() + 1, shape.end());
    for (int64_t expert = 0; expert < shape[0]; ++expert) {
      GgufMapped mapped{.seen = as_stored(matrix), .parts = {place}};
      mapped.seen.parts[0].base = expert * num_elements(matrix);
      put(name, with_number(huggingface, '@', expert), std::move(mapped));
    }
  }

  GgufMapped gate_up(const std::string& name, const GgufPlace& gate, bool in_turn) const {
    expect_rank(name, *gate.tensor, 3);
    const GgufPlace up = partner(name, "_gate_", "_up_", 3);
    const Shape& shape = gate.tensor->shape;
    if (up.tensor->shape != shape) refuse(name, "the shape of its partner, " + shape_text(up.tensor->shape));
    const int64_t m = shape[1], d = shape[2];
    const RearrangedPart part{.base = 0, .strides = {m * d, 1, 0}};
    Rearranged seen{.shape = {shape[0], d, 2 * m}, .parts = {part, part}, .split_dim = 2};
    if (in_turn) {
      seen.place = [d](int64_t column) { return Place{static_cast<size_t>(column % 2), column / 2 * d}; };
    } else {
      seen.place = [d, m](int64_t column) { return Place{static_cast<size_t>(column / m), column % m * d}; };
    }
    return {.seen = std::move(seen), .parts = {gate, up}};
  }

  GgufMapped gate_up_biases(const std::string& name, const GgufPlace& gate) const {
    expect_rank(name, *gate.tensor, 2);
    const GgufPlace up = partner(name, "_gate_", "_up_", 2);
    const Shape& shape = gate.tensor->shape;
    if (up.tensor->shape != shape) refuse(name, "the shape of its partner, " + shape_text(up.tensor->shape));
    const RearrangedPart part{.base = 0, .strides = {shape[1], 0}};
    return {.seen = {.shape = {shape[0], 2 * shape[1]},
                     .parts = {part, part},
                     .split_dim = 1,
                     .place = [](int64_t i) { return Place{static_cast<size_t>(i % 2), i / 2}; }},
            .parts = {gate, up}};
  }

  GgufMapped key_value_of_latent(const std::string& name, const GgufPlace& keys) const {
    expect_rank(name, *keys.tensor, 3);
    const GgufPlace values = partner(name, "_k_b", "_v_b", 3);
    const int64_t heads = keys.tensor->shape[0], latent = keys.tensor->shape[1], n = keys.tensor->shape[2], v = values.tensor->shape[1];
    if (values.tensor->shape[0] != heads || values.tensor->shape[2] != latent)
      refuse(name, concat_text("[heads, latent, key] beside [heads, value, latent], which is ", shape_text(values.tensor->shape)));
    return {.seen = {.shape = {heads * (n + v), latent},
                     .parts = {{.base = 0, .strides = {0, n}}, {.base = 0, .strides = {0, 1}}},
                     .split_dim = 0,
                     .place =
                         [=](int64_t row) {
                           const int64_t head = row / (n + v), i = row % (n + v);
                           return i < n ? Place{0, head * latent * n + i} : Place{1, (head * v + i - n) * latent};
                         }},
            .parts = {keys, values}};
  }

  const GgufFiles& files_;
  const std::string architecture_;
  const Rules rules_;
  std::map<std::string, GgufMapped> mapped_;
};

}  // namespace

std::map<std::string, GgufMapped> map_gguf_tensors(const GgufFiles& files) {
  check_gguf_architecture(files);
  return Mapper(files).map();
}

}  // namespace mw
