#include "fuzz/targets.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/error.h"
#include "base/printable.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/safetensors.h"
#include "config/huggingface_config.h"
#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "fuzz/gguf_seeds.h"
#include "fuzz/mutator.h"

namespace mw {
namespace {

using nlohmann::json;

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

void expect(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

// --- safetensors

const std::string& safetensors_header_text() {
  static const std::string text =
      R"({"__metadata__":{"format":"pt","k":"v"},"model.a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"q.weight":{"dtype":"F8_E4M3","shape":[2,0],"data_offsets":[32,32]},"s":{"dtype":"I64","shape":[],"data_offsets":[32,40],"more":[1,{"x":null}]}}  )";
  return text;
}

std::string whole_file(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, 'd');
}

std::string safetensors_case(Mutator& mutator) {
  if (mutator.below(8) == 0) return mutator.mutate_bytes(whole_file(safetensors_header_text(), 40));
  return whole_file(mutator.mutate_text(safetensors_header_text(), kSafetensorsWords), 40);
}

void read_safetensors(const std::string& bytes) {
  const SafetensorsHeader header = parse_safetensors(as_bytes(bytes), "model.safetensors");
  int64_t covered = 0;
  for (const StoredTensor& tensor : header.tensors) {
    expect(tensor.begin == covered && tensor.end >= tensor.begin && tensor.end <= static_cast<int64_t>(bytes.size()),
           "a tensor lies elsewhere");
    covered = tensor.end;
  }
}

// --- GGUF

void damage(GgufSeed& seed, Mutator& mutator) {
  static const std::vector<std::string> names{
      "token_embd.weight",   "blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight", "blk.99.attn_q.weight", "rope_freqs.weight", "blk.0.", "",
      "blk.01.attn_q.weight"};
  static const std::vector<std::string> texts{"llama", "gpt2", "deepseek2", "yarn", "linear", "longrope", "", "\xff\xfe", "qwen3moe"};
  for (size_t round = 1 + mutator.below(4); round > 0; --round) {
    if (mutator.below(2) && !seed.tensors.empty()) {
      GgufSeed::Tensor& tensor = seed.tensors[mutator.below(seed.tensors.size())];
      switch (mutator.below(6)) {
        case 0:
          tensor.name = mutator.one_of(names);
          break;
        case 1:
          tensor.type = static_cast<uint32_t>(mutator.below(42));
          break;
        case 2:
          if (!tensor.shape.empty()) tensor.shape[mutator.below(tensor.shape.size())] = mutator.one_of(kNumbersThatHurt);
          break;
        case 3:
          tensor.shape.insert(tensor.shape.begin(), 1 + mutator.below(4));
          break;
        case 4:
          if (!tensor.shape.empty()) tensor.shape.erase(tensor.shape.begin());
          break;
        default:
          seed.tensors.push_back(tensor);
      }
    } else {
      auto& [key, value] = seed.metadata[mutator.below(seed.metadata.size())];
      switch (mutator.below(6)) {
        case 0:
          value = static_cast<uint32_t>(mutator.one_of(kNumbersThatHurt));
          break;
        case 1:
          value = static_cast<float>(static_cast<double>(mutator.one_of(kNumbersThatHurt))) * (mutator.below(2) ? 1.0f : -0.1f);
          break;
        case 2:
          value = mutator.one_of(texts);
          break;
        case 3:
          value = mutator.below(2) ? GgufSeed::Value(true) : GgufSeed::Value(std::vector<std::string>{"", "x"});
          break;
        case 4:
          key = mutator.below(2) ? seed.metadata[mutator.below(seed.metadata.size())].first : key + "x";
          break;
        default:
          seed.metadata.erase(seed.metadata.begin() + static_cast<std::ptrdiff_t>(mutator.below(seed.metadata.size())));
          if (seed.metadata.empty()) return;
      }
    }
  }
}

std::string gguf_case(Mutator& mutator) {
  static const std::vector<std::string> valid = [] {
    std::vector<std::string> files;
    for (const GgufSeed& seed : gguf_seeds()) files.push_back(seed.bytes());
    return files;
  }();
  const size_t number = mutator.below(valid.size());
  if (mutator.below(2)) return mutator.mutate_bytes(valid[number]);
  GgufSeed seed = gguf_seeds()[number];
  damage(seed, mutator);
  return mutator.below(8) ? seed.bytes() : mutator.mutate_bytes(seed.bytes());
}

// A corner of a tensor at each end, and all of it where it is small.
void read_corners(const TensorSource& model, const std::string& name) {
  const TensorInfo info = model.info(name);
  Slice first = whole(info.shape), last = first;
  for (size_t d = 0; d < info.shape.size(); ++d) {
    first.end[d] = std::min<int64_t>(info.shape[d], 6);
    last.begin[d] = std::max<int64_t>(info.shape[d] - 3, 0);
  }
  for (const Slice& slice : {first, last}) {
    std::vector<float> values(static_cast<size_t>(num_elements(slice)));
    model.read(name, slice, DType::kF32, values.data());
  }
}

void read_gguf(const std::string& bytes) {
  GgufFile file = GgufFile::view(as_bytes(bytes), "model.gguf");
  size_t num_strings = 0;
  for (const auto& [key, value] : file.header().metadata) {
    if (value.type != GgufValueType::kArray) continue;
    if (value.array.type == GgufValueType::kString) {
      num_strings += value.array.strings().size();
    } else {
      num_strings += value.array.numbers().size();
    }
  }
  expect(num_strings <= bytes.size(), "more elements than bytes");
  int64_t covered = file.header().data_begin;
  for (const GgufTensor& tensor : file.header().tensors) {
    expect(tensor.begin >= covered && tensor.end > tensor.begin && tensor.end <= static_cast<int64_t>(bytes.size()),
           "a tensor lies elsewhere");
    covered = tensor.end;
  }
  const GgufModel model(GgufFiles::of(std::move(file)));
  for (const std::string& name : model.names()) read_corners(model, name);
  gguf_config(model.files());
}

// --- config.json

const std::vector<json>& config_seeds() {
  static const std::vector<json> seeds = [] {
    std::vector<json> all;
    for (const std::string& name : model_names("configs/models")) {
      all.push_back(json::parse(huggingface_config_text(find_model_config(name, "configs/models"), DType::kBF16)));
    }
    // As the hub has them: the spelling of transformers 4, and that of transformers 5.
    all.push_back(json::parse(R"({
      "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
      "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
      "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
      "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})"));
    all.push_back(json::parse(R"({
      "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
      "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
      "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
      "num_attention_heads": 16, "num_hidden_layers": 2, "num_key_value_heads": 8, "pad_token_id": null, "rms_norm_eps": 1e-06,
      "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "sliding_window": null, "tie_word_embeddings": true,
      "transformers_version": "5.23.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})"));
    return all;
  }();
  return seeds;
}

json value_that_hurts(Mutator& mutator, const json& config) {
  switch (mutator.below(9)) {
    case 0:
      return mutator.one_of(kNumbersThatHurt);
    case 1:
      return static_cast<int64_t>(mutator.one_of(kNumbersThatHurt));
    case 2:
      return std::string(mutator.one_of(kJsonWords).substr(0, 4) == "\xff" ? "x" : "full_attention");
    case 3:
      return nullptr;
    case 4:
      return static_cast<double>(mutator.one_of(kNumbersThatHurt)) * 1e-3;
    case 5:
      return mutator.below(2) == 0;
    case 6:
      return json::array({mutator.below(5), "sliding_attention", nullptr});
    case 7:
      return json{{"rope_type", mutator.below(2) ? "llama3" : "linear"}, {"factor", mutator.below(9)}};
    default:
      return std::next(config.begin(), static_cast<std::ptrdiff_t>(mutator.below(config.size()))).value();
  }
}

std::string config_case(Mutator& mutator) {
  constexpr std::string_view kWords[] = {"rope_scaling", "layer_types", "sliding_window", "architectures",
                                         "\"llama\"",    "[1,2]",       "1e308",          "{}"};
  json config = mutator.one_of(config_seeds());
  const bool as_text = mutator.below(2) == 0;
  for (size_t round = as_text ? mutator.below(2) : 1 + mutator.below(4); round > 0 && !config.empty(); --round) {
    const auto at = std::next(config.begin(), static_cast<std::ptrdiff_t>(mutator.below(config.size())));
    if (mutator.below(4) == 0) {
      config.erase(at);
    } else {
      at.value() = value_that_hurts(mutator, config);
    }
  }
  return as_text ? mutator.mutate_text(config.dump(), kWords) : config.dump();
}

void read_config(const std::string& text) {
  const ModelConfig config = parse_model_config(text, "folder/config.json");
  expect(config.num_layers > 0 && config.embedding_dim > 0 && config.num_query_heads > 0, "sizes that no model has");
}

struct Target {
  std::string name;
  std::string (*make)(Mutator&);
  void (*read)(const std::string&);
};

const std::vector<Target>& targets() {
  static const std::vector<Target> all{
      {"safetensors", safetensors_case, read_safetensors}, {"gguf", gguf_case, read_gguf}, {"config", config_case, read_config}};
  return all;
}

const Target& find_target(const std::string& name) {
  for (const Target& target : targets()) {
    if (target.name == name) return target;
  }
  throw UserError("there is no fuzz target '" + name + "'; there are safetensors, gguf and config");
}

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

std::vector<std::string> fuzz_targets() {
  std::vector<std::string> names;
  for (const Target& target : targets()) names.push_back(target.name);
  return names;
}

std::string fuzz_case(const std::string& target, uint64_t seed, int64_t number) {
  Mutator mutator(Mutator(seed).next() + static_cast<uint64_t>(number) * 0x2545f4914f6cdd1d);
  return find_target(target).make(mutator);
}

FuzzReport run_fuzz(const std::string& name, const FuzzOptions& options) {
  const Target& target = find_target(name);
  FuzzReport report;
  for (int64_t number = 0; number < options.cases; ++number) {
    const std::string bytes = fuzz_case(name, options.seed, number);
    if (options.before) options.before();
    const double start = thread_seconds();
    std::string problem;
    try {
      target.read(bytes);
      ++report.num_read;
    } catch (const UserError& error) {
      ++report.num_refused;
      const std::string message = error.what();
      if (!is_valid_utf8(message)) problem = "a message is not valid UTF-8: " + printable(message, 2000);
      if (message.size() > kMostMessageBytes) problem = concat_text("a message has ", message.size(), " bytes: ", printable(message, 2000));
    } catch (const std::exception& error) {
      problem = error.what();
    }
    const double seconds = thread_seconds() - start;
    report.seconds += seconds;
    if (seconds > report.slowest_seconds) {
      report.slowest_seconds = seconds;
      report.slowest_case = number;
    }
    if (!problem.empty()) throw std::runtime_error(concat_text(name, " seed ", options.seed, " case ", number, ": ", problem));
    if (options.after) options.after(number, bytes);
  }
  return report;
}

}  // namespace mw
