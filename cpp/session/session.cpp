#include "session/session.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/xxhash64.h"
#include "comm/agreement.h"
#include "exec/finite_check.h"
#include "layers/attention.h"
#include "models/initial_weights.h"
#include "models/registry.h"
#include "optim/optimizer.h"
#include "passes/check_rules.h"
#include "passes/partition.h"
#include "passes/place.h"
#include "planner/stages.h"
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
  return ends("rotary_emb.inv_freq") || ends(".position_ids") || ends("attn.masked_bias") || ends(".attn.bias");  // the last: GPT-2's mask
}

// The published GPT-2 files hold the inner model alone, whose names lack the prefix.
class BelowPrefix : public TensorSource {
 public:
  BelowPrefix(std::shared_ptr<const TensorSource> inner, std::string prefix) : inner_(std::move(inner)), prefix_(std::move(prefix)) {
    for (const std::string& name : inner_->names()) names_.push_back(prefix_ + name);
  }
  const std::string& path() const override { return inner_->path(); }
  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return name.starts_with(prefix_) && inner_->contains(inner_name(name)); }
  TensorInfo info(const std::string& name) const override { return inner_->info(inner_name(name)); }
  using TensorSource::read;
  void read(const std::string& name, const Slice& slice, DType as, void* to) const override {
    inner_->read(inner_name(name), slice, as, to);
  }

 private:
  std::string inner_name(const std::string& name) const { return name.substr(prefix_.size()); }

  std::shared_ptr<const TensorSource> inner_;
  std::string prefix_;
  std::vector<std::string> names_;
};

// A kept buffer as `place` would plan it.
Buffer kept_buffer(const std::string& name, BufferRole role, const Type& global, const Layout& layout) {
  Buffer buffer{.name = name, .role = role, .type = local_type(global, layout), .global_type = global, .layout = layout};
  buffer.bytes = padded(buffer.type.bytes());
  return buffer;
}

// Names in the files of the multimodal classes.
bool is_of_image_encoder(const std::string& name) {
  return name.starts_with("vision_tower.") || name.starts_with("vision_model.") || name.starts_with("multi_modal_projector.");
}

}  // namespace

ModelConfig config_for(ModelConfig config, const TensorSource& source) {
  if (config.mtp_layers == 0) return config;
  const std::string first = "model.layers." + std::to_string(config.num_layers) + ".";
  const auto& names = source.names();
  if (std::none_of(names.begin(), names.end(), [&](const std::string& name) { return name.starts_with(first); })) config.mtp_layers = 0;
  return config;
}

Session::Session(ModelConfig config, SessionOptions options) : config_(std::move(config)), options_(std::move(options)) {
  check_model_config(config_);
  check_rules(options_.rules, options_.mesh);
  stages_ = deal_out(config_, options_.mesh.size_of("stage"), options_.chunks);
  set_parameters();
  engine_ = std::make_unique<Engine>(EngineOptions{.mesh = options_.mesh, .threads = options_.threads, .world = options_.world});
  allocate_parameters();
}

void Session::set_parameters() {
  parameters_ = model_parameters(config_, options_.dtype);
  places_ = tensor_places(parameters_);
}

Session::Use::Use(const Session& session) : session_(session) {
  if (session.in_use_.exchange(true)) {
    throw UserError("the model is in use by another call (of another thread, or the one whose callback this is); expected one at a time");
  }
}

void Session::allocate_parameters() {
  for (int64_t stage = 0; stage < num_stages(); ++stage) {
    std::vector<Buffer> buffers;
    for (const ParameterSpec& p : parameters_) {
      if (!is_of_stage(stage, p)) continue;
      buffers.push_back(
          kept_buffer(p.name, BufferRole::kParameter, p.type, stored_layout(options_.rules.parameters, options_.mesh, p.type)));
    }
    engine_->ensure_kept(buffers, stage);
    engine_->ensure_kept(state_buffers(stage, kMasterPrefix, [&](const ParameterSpec& p) { return has_master(p); }), stage);
  }
}

std::vector<Buffer> Session::state_buffers(int64_t stage, const std::string& prefix,
                                           const std::function<bool(const ParameterSpec&)>& has_one) const {
  std::vector<Buffer> buffers;
  for (const ParameterSpec& p : parameters_) {
    if (!is_of_stage(stage, p) || !has_one(p)) continue;
    const Type type = p.type.with_dtype(DType::kF32);
    buffers.push_back(
        kept_buffer(prefix + p.name, BufferRole::kOptimizerState, type, stored_layout(options_.rules.optimizer, options_.mesh, type)));
  }
  return buffers;
}

std::vector<std::string> Session::tensor_names() const {
  std::vector<std::string> names;
  for (const ParameterSpec& p : parameters_) {
    for (int64_t i = 0; i < p.num_tensors(); ++i) names.push_back(p.tensor_name(i));
  }
  return names;
}

Session::TensorView Session::tensor(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw UserError("the model has no parameter '" + name + "'" + did_you_mean(name, tensor_names()));
  const ParameterSpec& p = parameters_[found->second.parameter];
  // The parts are the leading dims' indices, row-major.
  Block block = Block::whole(p.type);
  int64_t rest = p.num_tensors(), part = found->second.part;
  for (size_t d = 0; rest > 1; ++d) {
    const int64_t size = p.type.dims[d].size;
    MW_CHECK(rest % size == 0, p.name, " is not stacked along its leading dims");
    rest /= size;
    block.type.dims[d].size = 1;
    block.start[d] = part / rest;
    part %= rest;
  }
  return {p, std::move(block)};
}

void Session::initialize(uint64_t seed) {
  constexpr int64_t kElementsPerTile = int64_t{1} << 16;
  ThreadPool pool(engine_->threads());
  std::vector<float> values;
  for (const ParameterSpec& p : parameters_) {
    const int64_t count = p.tensor_elements();
    values.resize(static_cast<size_t>(count));
    for (int64_t part = 0; part < p.num_tensors(); ++part) {
      const std::string& name = p.tensor_name(part);
      pool.run((count + kElementsPerTile - 1) / kElementsPerTile, [&](int64_t tile, int) {
        const int64_t first = tile * kElementsPerTile;
        fill_initial(p, name, seed, first,
                     std::span(values).subspan(static_cast<size_t>(first), static_cast<size_t>(std::min(kElementsPerTile, count - first))));
      });
      write_tensor(name, DType::kF32, values.data());
    }
  }
}

// Gives the names that are left over and belong to the image encoder.
std::vector<std::string> Session::check_tensors(const TensorSource& source) const {
  std::vector<std::string> wrong, untouched;
  std::set<std::string> copies;
  const auto check = [&](const ParameterSpec& p, const std::string& name) {
    const Shape shape = source.info(name).shape;
    if (shape != p.hf_shape) wrong.push_back("shape: " + name + " is " + shape_text(shape) + "; expected " + shape_text(p.hf_shape));
  };
  for (const ParameterSpec& p : parameters_) {
    for (int64_t i = 0; i < p.num_tensors(); ++i) {
      const std::string& name = p.tensor_name(i);
      if (source.contains(name)) {
        check(p, name);
      } else {
        wrong.push_back("missing: " + name + " " + shape_text(p.hf_shape));
      }
    }
    for (const TensorCopy& copy : p.copies) {
      copies.insert(copy.name);
      if (source.contains(copy.name)) check(p, copy.name);
    }
  }
  for (const std::string& name : source.names()) {
    if (places_.count(name) || copies.count(name) || is_ignored(name)) continue;
    if (config_.vision && is_of_image_encoder(name)) {
      untouched.push_back(name);
    } else {
      wrong.push_back("unknown: " + name + " " + shape_text(source.info(name).shape) + did_you_mean(name, tensor_names()));
    }
  }
  if (!wrong.empty())
    throw UserError(source.path() + " does not hold a " + config_.hf_architecture + " of this configuration:" + listed(wrong));
  return untouched;
}

// Copies are read only to be compared.
void Session::check_copies(const TensorSource& source) const {
  for (const ParameterSpec& p : parameters_) {
    for (const TensorCopy& copy : p.copies) {
      if (!source.contains(copy.name)) continue;
      std::vector<std::byte> found(static_cast<size_t>(p.type.bytes())), kept(found.size());
      source.read(copy.name, p.type.dtype, found.data());
      engine_->read_kept(p.name, kept.data());
      if (found != kept)
        throw UserError(source.path() + ": " + (config_.tie_embeddings ? "tie_word_embeddings is set, but " : "") + copy.name +
                        " differs from " + p.name + ", of which it is a copy in a " + config_.hf_architecture);
    }
  }
}

void Session::load(std::shared_ptr<const TensorSource> source) {
  if (config_.hf_model_type == "gpt2" && source->contains("wte.weight")) source = std::make_shared<BelowPrefix>(source, "transformer.");
  untouched_ = check_tensors(*source);
  std::vector<std::byte> values;
  for (const ParameterSpec& p : parameters_) {
    const DType read_as = has_master(p) ? DType::kF32 : p.type.dtype;
    values.resize(static_cast<size_t>(p.tensor_elements() * dtype_bytes(read_as)));
    for (int64_t i = 0; i < p.num_tensors(); ++i) {
      source->read(p.tensor_name(i), read_as, values.data());
      write_tensor(p.tensor_name(i), read_as, values.data());
    }
  }
  check_copies(*source);
  source_ = std::move(source);
  changed_ = false;
}

void Session::read_tensor(const std::string& name, DType dtype, void* out, bool master, int64_t receiver) const {
  const TensorView view = tensor(name);
  read_block(view.parameter, view.block, dtype, out, master, receiver);
}

void Session::write_tensor(const std::string& name, DType dtype, const void* in) {
  const TensorView view = tensor(name);
  changed_ = true;
  write_block(view.parameter, view.block, dtype, in);
}

void Session::read_block(const ParameterSpec& p, const Block& block, DType dtype, void* out, bool master, int64_t receiver) const {
  const bool from_master = master && has_master(p);
  const DType stored = from_master ? DType::kF32 : p.type.dtype;
  const std::string kept = from_master ? kMasterPrefix + p.name : p.name;
  const Block stored_block{block.type.with_dtype(stored), block.start};
  if (stored == dtype) return engine_->read_kept(kept, stored_block, out, receiver);
  std::vector<std::byte> values(static_cast<size_t>(stored_block.type.bytes()));
  engine_->read_kept(kept, stored_block, values.data(), receiver);
  convert(stored, values.data(), dtype, out, block.type.elements());
}

void Session::write_block(const ParameterSpec& p, const Block& block, DType dtype, const void* in) {
  const auto write = [&](const std::string& kept, DType stored) {
    const Block stored_block{block.type.with_dtype(stored), block.start};
    if (stored == dtype) return engine_->write_kept(kept, stored_block, in);
    std::vector<std::byte> values(static_cast<size_t>(stored_block.type.bytes()));
    convert(dtype, in, stored, values.data(), block.type.elements());
    engine_->write_kept(kept, stored_block, values.data());
  };
  write(p.name, p.type.dtype);
  if (has_master(p)) write(kMasterPrefix + p.name, DType::kF32);
}

uint64_t Session::weights_hash() const {
  Xxhash64 hash;
  std::vector<std::byte> values;
  for (const ParameterSpec& p : parameters_) {
    values.resize(static_cast<size_t>(p.type.bytes()));
    engine_->read_kept(p.name, values.data());
    hash.update(values);
  }
  return hash.digest();
}

void Session::rehome(SessionOptions options) {
  // What can be wrong is found while the weights are still where they were.
  check_rules(options.rules, options.mesh);
  Stages stages = deal_out(config_, options.mesh.size_of("stage"), options.chunks);
  for (const ParameterSpec& p : model_parameters(config_, options.dtype)) stored_layout(options.rules.parameters, options.mesh, p.type);
  const std::vector<ParameterSpec> old_parameters = parameters_;
  const std::unique_ptr<Engine> old_engine = std::move(engine_);
  const bool had_masters = has_masters_;
  plans_.clear();
  expert_rows_factors_.clear();
  cache_sizes_ = {};  // the caches stay behind with the old engine
  options_ = std::move(options);
  stages_ = std::move(stages);
  set_parameters();
  engine_ = std::make_unique<Engine>(EngineOptions{.mesh = options_.mesh, .threads = options_.threads, .world = options_.world});
  has_masters_ = options_.dtype != DType::kF32;
  allocate_parameters();
  std::vector<std::byte> values;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterSpec& old = old_parameters[i];
    const bool from_master = had_masters && old.type.dtype != DType::kF32;
    const DType stored = from_master ? DType::kF32 : old.type.dtype;
    values.resize(static_cast<size_t>(old.type.elements() * dtype_bytes(stored)));
    old_engine->read_kept(from_master ? kMasterPrefix + old.name : old.name, values.data());
    write_block(parameters_[i], Block::whole(parameters_[i].type), stored, values.data());
  }
}

PlanOptions Session::plan_options(double expert_rows_factor) const {
  PlanOptions options;
  options.expert_rows_factor = expert_rows_factor;
  options.mesh = options_.mesh;
  options.rules = options_.rules;
  options.chunks = options_.chunks;
  options.layers_of_parts = stages_.layers;
  options.backend = cpu_backend(engine_->environment());
  return options;
}

LoadedPlan& Session::plan(const std::string& key, const PlanMaker& make) {
  std::unique_ptr<LoadedPlan>& loaded = plans_[key];
  if (!loaded) {
    const auto factor = expert_rows_factors_.find(key);
    try {
      loaded = engine_->load(make(factor == expert_rows_factors_.end() ? options_.expert_rows_factor : factor->second));
    } catch (...) {
      plans_.erase(key);
      throw;
    }
  }
  return *loaded;
}

LoadedPlan& Session::run_plan(const std::string& key, const PlanMaker& make, const ModelInputs& inputs,
                              const std::map<std::string, double>& scalars, const Engine::RowHook& before_row) {
  constexpr double kMoreRoom = 1.25;  // than was needed: layers behind the first that had too little are not known yet
  for (;;) {
    LoadedPlan& loaded = plan(key, make);
    try {
      engine_->run(loaded, inputs, scalars, before_row);
      return loaded;
    } catch (const TooManyExpertRows& error) {
      const ExpertRowsPlanned& rows = loaded.expert_rows;
      MW_CHECK(rows.bound < rows.worst, error.what(), ", which is the most there can be");
      expert_rows_factors_[key] = error.load * kMoreRoom;
      ++expert_reruns_;
      plans_.erase(key);
    }
  }
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
  const auto make = [&](double factor) {
    Program program = trace_forward(config_, batch_size(batch));
    add_captures(program, capture);
    return plan_single_stages(std::move(program), "forward", plan_options(factor));
  };
  return run_plan(key, make, batch, {});
}

Session::PlanMaker Session::loss_plan(const ModelInputs& batch) const {
  return [this, size = batch_size(batch)](double factor) {
    return plan_single_stages(trace_loss(config_, size), "loss", plan_options(factor));
  };
}

LoadedPlan& Session::run_loss(const ModelInputs& batch, double loss_scale) {
  return run_plan("loss " + shape_key(batch), loss_plan(batch), batch, {{"loss_scale", loss_scale}});
}

LoadedPlan& Session::run_gradients(const ModelInputs& batch, double loss_scale, const LossTerms& terms) {
  std::vector<std::string> trained;
  for (const ParameterSpec& p : parameters_) {
    if (p.trained) trained.push_back(p.name);
  }
  std::string key = "gradients " + shape_key(batch);
  if (terms != LossTerms{}) {
    forget_plans("gradients with terms");  // the newest are kept
    key = concat_text("gradients with terms ", terms.mtp, " ", terms.balance, " ", terms.sequence_balance, " ", terms.router_z, " ",
                      shape_key(batch));
  }
  const auto make = [&](double factor) {
    return plan_gradients_stages(trace_loss(config_, batch_size(batch), terms), trained, plan_options(factor));
  };
  return run_plan(key, make, batch, {{"loss_scale", loss_scale}});
}

std::string Session::first_not_finite(const ModelInputs& batch, double loss_scale) {
  run_loss(batch, loss_scale);  // so that rows of experts have the room that they need
  LoadedPlan& loaded = plan("loss " + shape_key(batch), loss_plan(batch));
  const World& world = engine_->world();
  std::vector<std::string> first(world.local_ranks().size());  // of each rank of this process
  engine_->observe(loaded, [&](int64_t rank, const Program& program, const Op& op, const cpu::KernelRun& run) {
    std::string& found = first[engine_->place_of(rank)];
    if (found.empty()) found = find_not_finite(program, op, run);
  });
  try {
    engine_->run(loaded, batch, {{"loss_scale", loss_scale}});
  } catch (...) {
    engine_->observe(loaded, nullptr);
    throw;
  }
  engine_->observe(loaded, nullptr);
  if (world.is_shared()) {
    Communicator& comm = engine_->world().rank(world.local_ranks()[0]);
    first = gather_texts(comm, everyone(comm), first[0]);
  }
  // Of the first stage that has one: the others only hand it on.
  std::map<int64_t, std::string> by_stage;
  for (size_t rank = 0; rank < first.size(); ++rank) {
    std::string& found = by_stage[options_.mesh.coordinate(static_cast<int64_t>(rank), "stage")];
    if (found.empty()) found = first[rank];
  }
  for (const auto& [stage, found] : by_stage) {
    if (!found.empty()) return found;
  }
  return "";
}

}  // namespace mw
