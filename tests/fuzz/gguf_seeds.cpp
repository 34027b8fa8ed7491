#include "fuzz/gguf_seeds.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "checkpoint/gguf.h"

namespace mw {
namespace {

template <typename T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& bytes, const std::string& text) {
  put(bytes, static_cast<uint64_t>(text.size()));
  bytes += text;
}

void put_value(std::string& bytes, const GgufSeed::Value& value) {
  if (const auto* number = std::get_if<uint32_t>(&value)) {
    put(bytes, GgufValueType::kU32);
    put(bytes, *number);
  } else if (const auto* real = std::get_if<float>(&value)) {
    put(bytes, GgufValueType::kF32);
    put(bytes, *real);
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    put(bytes, GgufValueType::kBool);
    put(bytes, static_cast<uint8_t>(*flag));
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    put(bytes, GgufValueType::kString);
    put_text(bytes, *text);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    put(bytes, GgufValueType::kArray);
    put(bytes, GgufValueType::kString);
    put(bytes, static_cast<uint64_t>(texts->size()));
    for (const std::string& each : *texts) put_text(bytes, each);
  } else {
    const auto& reals = std::get<std::vector<float>>(value);
    put(bytes, GgufValueType::kArray);
    put(bytes, GgufValueType::kF32);
    put(bytes, static_cast<uint64_t>(reals.size()));
    for (const float each : reals) put(bytes, each);
  }
}

// Bytes of a tensor, or nothing sensible where the shape or type is not: at most what a small file has.
uint64_t data_bytes(const GgufSeed::Tensor& tensor) {
  const GgufEncoding* encoding = find_gguf_encoding(tensor.type);
  uint64_t elements = 1;
  for (const uint64_t size : tensor.shape) elements = std::min<uint64_t>(elements * std::min<uint64_t>(size, 1 << 12), 1 << 14);
  return encoding ? elements / static_cast<uint64_t>(encoding->elements) * static_cast<uint64_t>(encoding->bytes) : 64;
}

GgufSeed base(const std::string& arch, uint32_t layers) {
  GgufSeed seed;
  const auto key = [&](const char* name) { return arch + "." + name; };
  seed.metadata = {{"general.architecture", arch},
                   {key("block_count"), layers},
                   {key("context_length"), uint32_t{64}},
                   {key("embedding_length"), uint32_t{32}},
                   {key("feed_forward_length"), uint32_t{32}},
                   {key("attention.head_count"), uint32_t{2}},
                   {key("attention.head_count_kv"), uint32_t{1}},
                   {key("attention.layer_norm_rms_epsilon"), 1e-6f},
                   {key("attention.layer_norm_epsilon"), 1e-5f},
                   {key("attention.key_length"), uint32_t{16}},
                   {key("rope.freq_base"), 500000.0f},
                   {key("rope.dimension_count"), uint32_t{16}},
                   {key("attention.sliding_window"), uint32_t{8}},
                   {key("expert_count"), uint32_t{2}},
                   {key("expert_used_count"), uint32_t{1}},
                   {key("expert_feed_forward_length"), uint32_t{32}},
                   {"tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "", "\xe2\x96\x81"}},
                   {"tokenizer.ggml.scores", std::vector<float>{0, -1, -2.5f}},
                   {"tokenizer.ggml.eos_token_id", uint32_t{2}},
                   {"tokenizer.ggml.add_bos_token", true}};
  seed.tensors = {{"token_embd.weight", {4, 32}, 8}, {"output_norm.weight", {32}, 0}};
  return seed;
}

GgufSeed llama() {
  GgufSeed seed = base("llama", 1);
  std::erase_if(seed.metadata, [](const auto& pair) { return pair.first.find("expert") != std::string::npos; });
  seed.metadata.emplace_back("general.alignment", uint32_t{32});
  std::vector<float> factors;
  for (int i = 0; i < 8; ++i) {
    const double length = 2 * std::numbers::pi * std::pow(500000.0, i / 8.0), smooth = (8192 / length - 1) / 3;
    factors.push_back(static_cast<float>(length < 2048 ? 1 : length > 8192 ? 8 : 1 / ((1 - smooth) / 8 + smooth)));
  }
  seed.tensors.push_back({"rope_freqs.weight", {8}, 0, factors});
  seed.tensors.push_back({"blk.0.attn_q.weight", {32, 32}, 2});
  seed.tensors.push_back({"blk.0.attn_k.weight", {16, 32}, 30});
  seed.tensors.push_back({"blk.0.attn_q.bias", {32}, 1});
  seed.tensors.push_back({"blk.0.ffn_up.weight", {1, 256}, 12});
  seed.tensors.push_back({"blk.0.ffn_down.weight", {1, 256}, 14});
  return seed;
}

GgufSeed with_tensors(const std::string& arch, std::vector<GgufSeed::Tensor> tensors) {
  GgufSeed seed = base(arch, 2);
  seed.tensors.insert(seed.tensors.end(), tensors.begin(), tensors.end());
  return seed;
}

GgufSeed deepseek() {
  GgufSeed seed = with_tensors("deepseek2", {{"blk.0.attn_k_b.weight", {2, 16, 4}, 0},
                                             {"blk.0.attn_v_b.weight", {2, 6, 16}, 0},
                                             {"blk.1.exp_probs_b.bias", {2}, 0},
                                             {"blk.1.ffn_up_exps.weight", {2, 4, 32}, 8}});
  for (auto& [key, value] : seed.metadata) {
    if (key == "deepseek2.rope.dimension_count") value = uint32_t{8};
  }
  for (const char* key : {"attention.kv_lora_rank", "leading_dense_block_count", "expert_shared_count", "attention.value_length"})
    seed.metadata.emplace_back(std::string("deepseek2.") + key, uint32_t{1});
  seed.metadata.emplace_back("deepseek2.rope.scaling.type", "yarn");
  seed.metadata.emplace_back("deepseek2.rope.scaling.factor", 40.0f);
  seed.metadata.emplace_back("deepseek2.rope.scaling.original_context_length", uint32_t{4096});
  return seed;
}

}  // namespace

std::string GgufSeed::bytes() const {
  std::string out = "GGUF";
  put(out, uint32_t{3});
  put(out, static_cast<uint64_t>(tensors.size()));
  put(out, static_cast<uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    put_text(out, key);
    put_value(out, value);
  }
  std::string data;
  for (const Tensor& tensor : tensors) {
    put_text(out, tensor.name);
    put(out, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;) put(out, tensor.shape[d]);
    put(out, tensor.type);
    put(out, static_cast<uint64_t>(data.size()));
    const size_t begin = data.size();
    for (uint64_t i = 0; i < data_bytes(tensor); ++i) data += static_cast<char>(i * 37 + data.size());
    if (!tensor.values.empty() && tensor.values.size() * 4 <= data.size() - begin)
      std::memcpy(data.data() + begin, tensor.values.data(), tensor.values.size() * 4);
    data.resize((data.size() + 31) / 32 * 32);
  }
  out.resize((out.size() + 31) / 32 * 32);
  return out + data;
}

const std::vector<GgufSeed>& gguf_seeds() {
  static const std::vector<GgufSeed> seeds{
      llama(),
      with_tensors("llama", {{"blk.1.ffn_gate_exps.weight", {2, 4, 32}, 8}, {"blk.1.ffn_down_exps.weight", {2, 4, 32}, 6}}),
      with_tensors("qwen3moe", {{"blk.1.ffn_gate_exps.weight", {2, 4, 32}, 7}, {"blk.0.attn_q_norm.weight", {16}, 0}}),
      with_tensors("gemma2", {{"blk.0.post_ffw_norm.weight", {32}, 0}, {"blk.1.ffn_gate.weight", {4, 32}, 3}}),
      with_tensors("gemma3", {{"blk.0.attn_k_norm.weight", {16}, 0}}),
      with_tensors("gpt-oss", {{"blk.0.ffn_gate_exps.weight", {2, 4, 32}, 39},
                               {"blk.0.ffn_up_exps.weight", {2, 4, 32}, 39},
                               {"blk.0.ffn_gate_exps.bias", {2, 4}, 0},
                               {"blk.0.ffn_up_exps.bias", {2, 4}, 0},
                               {"blk.0.ffn_down_exps.weight", {2, 6, 32}, 39}}),
      with_tensors("gpt2", {{"blk.0.attn_qkv.weight", {6, 32}, 8}, {"position_embd.weight", {4, 3}, 0}}),
      deepseek(),
  };
  return seeds;
}

}  // namespace mw
