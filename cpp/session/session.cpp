#include "session/session.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "exec/finite_check.h"
#include "layers/attention.h"
#include "models/initial_weights.h"
#include "models/registry.h"
#include "optim/optimizer.h"
#include "passes/partition.h"
#include "planner/train_plan.h"
#include "session/capture.h"

namespace mw {
namespace {

void convert(DType from, const void* in, DType to, void* out, int64_t count) {
  if (from == to) {
    std::copy_n(static_cast<const std::byte*>(in), count * dtype_bytes(from), static_cast<std::byte*>(out));
  } else if (from == DType::kF32 && to == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) static_cast<BF16*>(out)[i] = to_bf16(static_cast<const float*>(in)[i]);
  } else if (from == DType::kBF16 && to == DType::kF32) {
    for (int64_t i = 0; i < count; ++i) static_cast<float*>(out)[i] = to_float(static_cast<const BF16*>(in)[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) store_element(to, out, i, load_element(from, in, i));
  }
}

std::string listed(const std::vector<std::string>& lines) {
  std::string text;
  for (size_t i = 0; i < lines.size() && i < 20; ++i) text += "\n  " + lines[i];
  if (lines.size() > 20) text += "\n  and " + std::to_string(lines.size() - 20) + " more";
  return text;
}

// Buffers that old files carry and no model of ours reads.
bool is_ignored(const std::string& name) {
  const auto ends = [&](const std::string& suffix) {
    return name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
  };
  return ends("rotary_emb.inv_freq") || ends(".position_ids") || ends("attn.masked_bias");
}

}  // namespace

Buffer kept_buffer(const std::string& name, BufferRole role, const Type& global, const Layout& layout) {
  Buffer buffer{.name = name, .role = role, .type = local_type(global, layout), .global_type = global, .layout = layout};
  buffer.bytes = (buffer.type.bytes() + kPlacementAlignment - 1) / kPlacementAlignment * kPlacementAlignment;
  return buffer;
}

Session::Session(ModelConfig config, SessionOptions options) : config_(std::move(config)), options_(std::move(options)) {
  check_model_config(config_);
  parameters_ = model_parameters(config_, options_.dtype);
  engine_ = std::make_unique<Engine>(EngineOptions{.mesh = options_.mesh, .threads = options_.threads});
  allocate_parameters();
}

Session::Use::Use(const Session& session) : session_(session) {
  if (session.in_use_.exchange(true)) {
    throw UserError("the model is in use by another call (of another thread, or the one whose callback this is); expected one at a time");
  }
}

void Session::allocate_parameters() {
  std::vector<Buffer> buffers;
  for (const ParameterSpec& p : parameters_)
    buffers.push_back(kept_buffer(p.name, BufferRole::kParameter, p.type, stored_layout(options_.rules.parameters, options_.mesh, p.type)));
  engine_->ensure_kept(buffers);
}

const ParameterSpec& Session::parameter(const std::string& name) const {
  for (const ParameterSpec& p : parameters_) {
    if (p.name == name) return p;
  }
  std::vector<std::string> names;
  for (const ParameterSpec& p : parameters_) names.push_back(p.name);
  throw UserError("the model has no parameter '" + name + "'" + did_you_mean(name, names));
}

void Session::initialize(uint64_t seed) {
  constexpr int64_t kElementsPerTile = int64_t{1} << 16;
  ThreadPool pool(engine_->threads());
  std::vector<float> values;
  for (const ParameterSpec& p : parameters_) {
    values.resize(static_cast<size_t>(p.type.elements()));
    const int64_t count = p.type.elements();
    pool.run((count + kElementsPerTile - 1) / kElementsPerTile, [&](int64_t tile, int) {
      const int64_t first = tile * kElementsPerTile;
      fill_initial(p, seed, first,
                   std::span(values).subspan(static_cast<size_t>(first), static_cast<size_t>(std::min(kElementsPerTile, count - first))));
    });
    write_parameter(p.name, DType::kF32, values.data());
  }
}

void Session::load(const TensorFolder& folder) {
  std::vector<std::string> wrong;
  std::set<std::string> known;
  for (const ParameterSpec& p : parameters_) {
    known.insert(p.name);
    if (!folder.contains(p.name)) {
      wrong.push_back("missing: " + p.name + " " + shape_text(p.hf_shape));
    } else if (folder.tensor(p.name).shape != p.hf_shape) {
      wrong.push_back("shape: " + p.name + " is " + shape_text(folder.tensor(p.name).shape) + "; expected " + shape_text(p.hf_shape));
    }
  }
  const bool tied_head = config_.tie_embeddings && folder.contains("lm_head.weight");
  for (const std::string& name : folder.names()) {
    if (known.count(name) || is_ignored(name) || (tied_head && name == "lm_head.weight")) continue;
    std::vector<std::string> names(known.begin(), known.end());
    wrong.push_back("unknown: " + name + " " + shape_text(folder.tensor(name).shape) + did_you_mean(name, names));
  }
  if (!wrong.empty())
    throw UserError(folder.path() + " does not hold a " + config_.hf_architecture + " of this configuration:" + listed(wrong));
  const DType read_as = has_masters_ ? DType::kF32 : options_.dtype;
  std::vector<std::byte> values;
  for (const ParameterSpec& p : parameters_) {
    values.resize(static_cast<size_t>(p.type.elements() * dtype_bytes(read_as)));
    folder.read(p.name, read_as, values.data());
    write_parameter(p.name, read_as, values.data());
  }
  if (tied_head) {  // a copy of the tied head is read only to be compared
    const ParameterSpec& embedding = parameter("model.embed_tokens.weight");
    std::vector<std::byte> head(static_cast<size_t>(embedding.type.bytes())), table(head.size());
    folder.read("lm_head.weight", options_.dtype, head.data());
    engine_->read_kept(embedding.name, table.data());
    if (head != table)
      throw UserError(folder.path() + ": tie_word_embeddings is set, but lm_head.weight differs from model.embed_tokens.weight");
  }
}

void Session::read_parameter(const std::string& name, DType dtype, void* out, bool master) const {
  const ParameterSpec& p = parameter(name);
  const bool from_master = master && has_masters_;
  const DType stored = from_master ? DType::kF32 : p.type.dtype;
  const std::string kept = from_master ? kMasterPrefix + name : name;
  if (stored == dtype) return engine_->read_kept(kept, out);
  std::vector<std::byte> values(static_cast<size_t>(p.type.elements() * dtype_bytes(stored)));
  engine_->read_kept(kept, values.data());
  convert(stored, values.data(), dtype, out, p.type.elements());
}

void Session::write_parameter(const std::string& name, DType dtype, const void* in) {
  const ParameterSpec& p = parameter(name);
  const auto write = [&](const std::string& kept, DType stored) {
    if (stored == dtype) return engine_->write_kept(kept, in);
    std::vector<std::byte> values(static_cast<size_t>(p.type.elements() * dtype_bytes(stored)));
    convert(dtype, in, stored, values.data(), p.type.elements());
    engine_->write_kept(kept, values.data());
  };
  write(name, p.type.dtype);
  if (has_masters_) write(kMasterPrefix + name, DType::kF32);
}

void Session::rehome(SessionOptions options) {
  const std::vector<ParameterSpec> old_parameters = parameters_;
  const std::unique_ptr<Engine> old_engine = std::move(engine_);
  const bool had_masters = has_masters_;
  plans_.clear();
  cache_sizes_ = {};  // the caches stay behind with the old engine
  options_ = std::move(options);
  parameters_ = model_parameters(config_, options_.dtype);
  engine_ = std::make_unique<Engine>(EngineOptions{.mesh = options_.mesh, .threads = options_.threads});
  has_masters_ = options_.dtype != DType::kF32;
  allocate_parameters();
  if (has_masters_) {
    std::vector<Buffer> masters;
    for (const ParameterSpec& p : parameters_) {
      const Type type = p.type.with_dtype(DType::kF32);
      masters.push_back(kept_buffer(kMasterPrefix + p.name, BufferRole::kOptimizerState, type,
                                    stored_layout(options_.rules.optimizer, options_.mesh, type)));
    }
    engine_->ensure_kept(masters);
  }
  std::vector<std::byte> values;
  for (const ParameterSpec& p : old_parameters) {
    const DType stored = had_masters ? DType::kF32 : p.type.dtype;
    values.resize(static_cast<size_t>(p.type.elements() * dtype_bytes(stored)));
    old_engine->read_kept(had_masters ? kMasterPrefix + p.name : p.name, values.data());
    write_parameter(p.name, stored, values.data());
  }
}

PlanOptions Session::plan_options() const {
  PlanOptions options;
  options.mesh = options_.mesh;
  options.rules = options_.rules;
  options.backend = cpu_backend(engine_->environment());
  return options;
}

LoadedPlan& Session::plan(const std::string& key, const std::function<Plan()>& make) {
  std::unique_ptr<LoadedPlan>& loaded = plans_[key];
  if (!loaded) {
    try {
      loaded = engine_->load(make());
    } catch (...) {
      plans_.erase(key);
      throw;
    }
  }
  return *loaded;
}

void Session::forget_plans(const std::string& prefix) {
  std::erase_if(plans_, [&](const auto& entry) { return entry.first.compare(0, prefix.size(), prefix) == 0; });
}

void Session::use_caches(const CacheSizes& sizes) {
  if (cache_sizes_ == sizes) return;
  forget_plans("decode");
  engine_->forget_kept(kCachePrefix);
  cache_sizes_ = sizes;
}

BatchSize Session::batch_size(const ModelInputs& batch) const {
  const Type& ids = batch.at("input_ids").type;
  return {.batch = ids.size_of("batch"), .seq = ids.size_of("seq"), .dtype = options_.dtype};
}

std::string Session::shape_key(const ModelInputs& batch) const { return to_string(batch.at("input_ids").type); }

LoadedPlan& Session::run_forward(const ModelInputs& batch, const std::vector<std::string>& capture) {
  std::string key = "forward " + shape_key(batch);
  for (const std::string& pattern : capture) key += " " + pattern;
  LoadedPlan& loaded = plan(key, [&] {
    Program program = trace_forward(config_, batch_size(batch));
    add_captures(program, capture);
    return plan_single(std::move(program), "forward", plan_options());
  });
  engine_->run(loaded, batch, {});
  return loaded;
}

LoadedPlan& Session::run_loss(const ModelInputs& batch, double loss_scale) {
  LoadedPlan& loaded =
      plan("loss " + shape_key(batch), [&] { return plan_single(trace_loss(config_, batch_size(batch)), "loss", plan_options()); });
  engine_->run(loaded, batch, {{"loss_scale", loss_scale}});
  return loaded;
}

LoadedPlan& Session::run_gradients(const ModelInputs& batch, double loss_scale) {
  LoadedPlan& loaded =
      plan("gradients " + shape_key(batch), [&] { return plan_gradients(trace_loss(config_, batch_size(batch)), {}, plan_options()); });
  engine_->run(loaded, batch, {{"loss_scale", loss_scale}});
  return loaded;
}

std::string Session::first_not_finite(const ModelInputs& batch, double loss_scale) {
  LoadedPlan& loaded =
      plan("loss " + shape_key(batch), [&] { return plan_single(trace_loss(config_, batch_size(batch)), "loss", plan_options()); });
  std::string first;
  engine_->observe(loaded, [&](int64_t rank, const Program& program, const Op& op, const cpu::KernelRun& run) {
    if (rank != 0 || !first.empty()) return;
    first = find_not_finite(program, op, run);
  });
  try {
    engine_->run(loaded, batch, {{"loss_scale", loss_scale}});
  } catch (...) {
    engine_->observe(loaded, nullptr);
    throw;
  }
  engine_->observe(loaded, nullptr);
  return first;
}

}  // namespace mw
