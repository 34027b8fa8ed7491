// Model configurations, sessions, optimizer steps and generation.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <nlohmann/json.hpp>

#include "arrays.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/xxhash64.h"
#include "bindings.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/open_weights.h"
#include "checkpoint/slice.h"
#include "config/huggingface_config.h"
#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "config/rules_file.h"
#include "decode/generator.h"
#include "exec/shards.h"
#include "models/counts.h"
#include "models/flops.h"
#include "models/registry.h"
#include "planner/step_report.h"
#include "settings.h"
#include "train/checkpointing.h"
#include "train/train_step.h"

namespace mw {
namespace {

// Arrays [batch, seq] by field name, C-contiguous int32 or float32, kept alive by the dict.
ModelInputs model_inputs(const py::dict& fields) {
  ModelInputs inputs;
  for (const auto& [key, value] : fields) {
    const auto name = py::cast<std::string>(key);
    const auto array = py::cast<py::array>(value);
    if (array.ndim() != 2 || !(array.flags() & py::array::c_style))
      throw UserError("batch field '" + name + "' must be a C-contiguous array [batch, seq]");
    const bool is_float = array.dtype().kind() == 'f';
    if (array.itemsize() != 4) throw UserError("batch field '" + name + "' must be int32 or float32");
    inputs[name] = {Type{is_float ? DType::kF32 : DType::kI32, {{"batch", array.shape(0)}, {"seq", array.shape(1)}}}, array.data()};
  }
  return inputs;
}

void bind_config(py::module_& m) {
  m.def("find_model_config", [](const std::string& name, const std::string& folder) {
    const ModelConfig config = find_model_config(name, folder);
    return std::make_pair(config.name, model_config_text(config));
  });
  // The four tables of a layout of `folder` (configs/rules) or of a JSON file.
  m.def("find_rules", [](const std::string& name, const std::string& folder) {
    const Rules rules = find_rules(name, folder);
    const auto rows = [](const RuleTable& table) {
      std::vector<std::string> texts;
      for (const RuleRow& row : table) texts.push_back(to_string(row));
      return texts;
    };
    return py::dict(py::arg("compute") = rows(rules.compute), py::arg("parameters") = rows(rules.parameters),
                    py::arg("gradients") = rows(rules.gradients), py::arg("optimizer") = rows(rules.optimizer),
                    py::arg("context_attention") = to_string(rules.context_attention));
  });
  m.def("parse_model_config",
        [](const std::string& text, const std::string& source) { return model_config_text(parse_model_config(text, source)); });
  m.def("override_model_config", [](const std::string& text, const std::string& overrides) {
    ModelConfig config = config_from(text);
    override_model_config(config, parse_json_strict(overrides, "overrides"));
    return model_config_text(config);
  });
  // "float32", "bfloat16", "float16", or "" where the folder's config.json does not say.
  m.def("stored_dtype", [](const std::string& folder) {
    const std::optional<DType> dtype = load_model_config(folder).dtype;
    return dtype ? huggingface_dtype_name(*dtype) : std::string();
  });
  m.def("config_for_weights", [](const std::string& text, const std::string& path) {
    return model_config_text(config_for(config_from(text), *open_weights(path)));
  });
  m.def("model_names", &model_names);
  m.def("huggingface_config_text",
        [](const std::string& text, const std::string& dtype) { return huggingface_config_text(config_from(text), parse_dtype(dtype)); });
  // Name and shape of each tensor in the model's files.
  m.def("parameter_tensors", [](const std::string& text) {
    std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
    for (const ParameterSpec& p : model_parameters(config_from(text))) {
      for (int64_t i = 0; i < p.num_tensors(); ++i) tensors.emplace_back(p.tensor_name(i), p.hf_shape);
      for (const TensorCopy& copy : p.copies) {
        if (copy.written) tensors.emplace_back(copy.name, p.hf_shape);
      }
    }
    return tensors;
  });
  m.def("model_costs", [](const std::string& text, double seq) {
    const ModelConfig config = config_from(text);
    py::dict costs;
    const ParameterCounts counts = count_parameters(config);
    costs["num_parameters"] = counts.total;
    costs["active_parameters"] = counts.active;
    costs["embedding_parameters"] = counts.embedding;
    costs["vision_parameters"] = counts.vision;
    costs["mtp_parameters"] = counts.mtp;
    costs["training_flops_per_token"] = training_flops_per_token(config, seq);
    costs["forward_flops_per_token"] = forward_flops(config, 1.0, seq) / seq;
    costs["kv_cache_bytes_per_token"] = kv_cache_bytes_per_token(config, DType::kBF16);
    costs["kv_cache_bytes"] = kv_cache_bytes(config, DType::kBF16, static_cast<int64_t>(seq));
    return costs;
  });
}

// Of the parameter's dims, those along which this tensor is one of several.
size_t num_stacked(const Session::TensorView& view) {
  size_t stacked = 0;
  for (int64_t rest = view.parameter.num_tensors(); rest > 1; rest /= view.parameter.type.dims[stacked++].size) {
  }
  return stacked;
}

// The tensor under its own dims.
Type own_type(const Session::TensorView& view) {
  Type type = view.block.type;
  type.dims.erase(type.dims.begin(), type.dims.begin() + static_cast<std::ptrdiff_t>(num_stacked(view)));
  return type;
}

void bind_session(py::module_& m) {
  py::class_<Session>(m, "Session")
      .def(py::init(
               [](const std::string& config, const std::string& dtype, const std::map<std::string, int64_t>& mesh, const py::object& rules,
                  int threads) { return std::make_unique<Session>(config_from(config), session_options(dtype, mesh, rules, threads)); }),
           py::arg("config"), py::arg("dtype"), py::arg("mesh"), py::arg("rules"), py::arg("threads"))
      .def("initialize", &Session::initialize, py::call_guard<py::gil_scoped_release>())
      .def(
          "load",
          [](Session& s, const std::string& path) {
            const Session::Use use(s);
            s.load(open_weights(path));
          },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "rehome",
          [](Session& s, const std::string& dtype, const std::map<std::string, int64_t>& mesh, const py::object& rules, int64_t interleave,
             int threads, double factor) {
            SessionOptions options = session_options(dtype, mesh, rules, threads);
            options.chunks = interleave;
            options.expert_rows_factor = expert_rows_factor(factor);
            const Session::Use use(s);
            const py::gil_scoped_release unlocked;
            s.rehome(std::move(options));
          },
          py::arg("dtype"), py::arg("mesh"), py::arg("rules"), py::arg("interleave"), py::arg("threads"), py::arg("expert_rows_factor"))
      .def_property_readonly("dtype", [](const Session& s) { return std::string(dtype_name(s.options().dtype)); })
      .def_property_readonly("num_ranks", [](const Session& s) { return s.options().mesh.size(); })
      .def_property_readonly("has_masters", &Session::has_masters)
      .def("weights_hash",
           [](const Session& s) {
             const Session::Use use(s);
             const py::gil_scoped_release unlocked;
             return hex16(s.weights_hash());
           })
      .def("tensors",
           [](const Session& s) {
             py::list list;
             for (const std::string& name : s.tensor_names()) {
               const Session::TensorView view = s.tensor(name);
               py::dict item;
               item["name"] = name;
               item["shape"] = view.parameter.hf_shape;
               item["type"] = to_string(own_type(view));
               item["decays"] = view.parameter.decays();
               list.append(item);
             }
             return list;
           })
      .def("read_tensor",
           [](const Session& s, const std::string& name, const std::string& dtype, bool master) {
             const std::vector<int64_t>& shape = s.tensor(name).parameter.hf_shape;
             py::array array(numpy_dtype(parse_dtype(dtype)), std::vector<py::ssize_t>(shape.begin(), shape.end()));
             const Session::Use use(s);
             void* data = array.mutable_data();
             const py::gil_scoped_release unlocked;
             s.read_tensor(name, parse_dtype(dtype), data, master);
             return array;
           })
      .def("write_tensor",
           [](Session& s, const std::string& name, const py::array_t<float, py::array::c_style>& values) {
             if (std::vector<int64_t>(values.shape(), values.shape() + values.ndim()) != s.tensor(name).parameter.hf_shape)
               throw UserError("'" + name + "' has another shape than the array given");
             const Session::Use use(s);
             s.write_tensor(name, DType::kF32, values.data());
           })
      .def("local_shard",
           [](Session& s, const std::string& name, std::optional<int64_t> which) {
             const int64_t rank = which.value_or(s.engine().world().local_ranks()[0]);
             const Session::TensorView view = s.tensor(name);
             if (const int64_t stage = s.options().mesh.coordinate(rank, "stage"); !s.is_of_stage(stage, view.parameter))
               throw UserError(concat_text("rank ", rank, " is of stage ", stage, ", which has nothing of '", name, "'"));
             const KeptStore::Entry& entry = s.engine().memory(rank).kept.get(view.parameter.name);
             const Block shard{entry.buffer.type, shard_start(entry.buffer.global_type, entry.buffer.layout, s.options().mesh, rank)};
             // What this rank has of the tensor is one run of its shard: the stacked dims stand outermost.
             const size_t stacked = num_stacked(view);
             const std::vector<int64_t> strides = shard.type.strides();
             int64_t offset = 0;
             bool here = true;
             std::vector<py::ssize_t> shape;
             std::vector<int64_t> start;
             std::vector<std::string> dims;
             for (size_t d = 0; d < shard.type.dims.size(); ++d) {
               if (d >= stacked) {
                 shape.push_back(shard.type.dims[d].size);
                 start.push_back(shard.start[d]);
                 dims.push_back(shard.type.dims[d].name);
                 continue;
               }
               const int64_t index = view.block.start[d] - shard.start[d];
               here = here && index >= 0 && index < shard.type.dims[d].size;
               offset += index * strides[d];
             }
             if (!here) {
               shape[0] = 0;
               offset = 0;
             }
             // The array holds the memory itself: a Trainer that takes the model gives the session another engine.
             const py::capsule owner(new std::shared_ptr<Arena>(entry.arena),
                                     [](void* arena) { delete static_cast<std::shared_ptr<Arena>*>(arena); });
             return py::make_tuple(py::array(numpy_dtype(shard.type.dtype), shape,
                                             static_cast<const std::byte*>(entry.data) + offset * dtype_bytes(shard.type.dtype), owner),
                                   start, dims);
           })
      .def("forward",
           [](Session& s, const py::dict& fields, const std::vector<std::string>& capture) {
             const ModelInputs inputs = model_inputs(fields);
             const Session::Use use(s);
             LoadedPlan* loaded = nullptr;
             {
               const py::gil_scoped_release unlocked;
               loaded = &s.run_forward(inputs, capture);
             }
             py::dict results;
             for (const Buffer& buffer : loaded->results) {
               results[py::str(buffer.name)] = py::make_tuple(copy_array(buffer.type, s.engine().result(*loaded, buffer.name)),
                                                              buffer.type.dim_names(), std::string(dtype_name(buffer.type.dtype)));
             }
             return results;
           })
      .def("loss",
           [](Session& s, const py::dict& fields, double loss_scale) {
             const ModelInputs inputs = model_inputs(fields);
             const Session::Use use(s);
             const py::gil_scoped_release unlocked;
             return s.engine().scalar(s.run_loss(inputs, loss_scale), "loss");
           })
      .def("gradients",
           [](Session& s, const py::dict& fields, double loss_scale, const py::dict& losses) {
             const ModelInputs inputs = model_inputs(fields);
             const LossTerms terms = loss_terms(losses);
             const Session::Use use(s);
             LoadedPlan* loaded = nullptr;
             {
               const py::gil_scoped_release unlocked;
               loaded = &s.run_gradients(inputs, loss_scale, terms);
             }
             py::dict gradients;
             for (const ParameterSpec& p : s.parameters()) {
               if (!p.trained) continue;
               const std::string result = "gradient." + p.name;
               Type type = s.engine().result_type(*loaded, result);
               const std::byte* data = s.engine().result(*loaded, result);
               for (int64_t i = 0; i < p.num_tensors(); ++i) {
                 const Type piece{type.dtype, {{"tokens", p.tensor_elements()}}};
                 gradients[py::str(p.tensor_name(i))] = copy_array(piece, data + i * piece.bytes()).attr("reshape")(py::cast(p.hf_shape));
               }
             }
             return py::make_tuple(s.engine().scalar(*loaded, "loss"), gradients);
           })
      .def("first_not_finite", [](Session& s, const py::dict& fields, double loss_scale) {
        const ModelInputs inputs = model_inputs(fields);
        const Session::Use use(s);
        const py::gil_scoped_release unlocked;
        return s.first_not_finite(inputs, loss_scale);
      });
}

void bind_training(py::module_& m) {
  py::class_<TrainStep>(m, "TrainStep")
      .def(py::init([](Session& session, const py::dict& optimizer, int microbatches, const std::string& remat, int64_t memory_bytes,
                       bool decay_embeddings, const py::dict& losses, const std::string& reduced_in, int64_t most_in_flight,
                       const std::string& pipeline) {
             return std::make_unique<TrainStep>(session, TrainOptions{.optimizer = optimizer_config(optimizer),
                                                                      .microbatches = microbatches,
                                                                      .remat = parse_remat(remat),
                                                                      .memory_bytes = memory_bytes,
                                                                      .decay_embeddings = decay_embeddings,
                                                                      .losses = loss_terms(losses),
                                                                      .reduce_dtype = reduce_dtype(reduced_in),
                                                                      .most_in_flight = most_in_flight,
                                                                      .pipeline = parse_pipeline_order(pipeline)});
           }),
           py::arg("session"), py::arg("optimizer"), py::arg("microbatches"), py::arg("remat"), py::arg("memory_bytes"),
           py::arg("decay_embeddings"), py::arg("losses"), py::arg("reduce_dtype"), py::arg("most_in_flight"), py::arg("pipeline"),
           py::keep_alive<1, 2>())
      .def_property("steps", &TrainStep::steps, &TrainStep::set_steps)
      .def("run",
           [](TrainStep& t, const py::dict& fields, double loss_scale, double lr) {
             const ModelInputs inputs = model_inputs(fields);
             StepResult result;
             {
               const py::gil_scoped_release unlocked;
               result = t.run(inputs, loss_scale, lr);
             }
             return py::make_tuple(result.loss, result.grad_norm, result.finite, result.more);
           })
      .def("state_names", &TrainStep::state_names)
      .def("read_state",
           [](const TrainStep& t, const std::string& name) {
             const std::vector<int64_t>& shape = t.state_shape(name);
             py::array_t<float> array(std::vector<py::ssize_t>(shape.begin(), shape.end()));
             t.read_state(name, array.mutable_data());
             return array;
           })
      .def("write_state",
           [](TrainStep& t, const std::string& name, const py::array_t<float, py::array::c_style>& values) {
             if (values.size() != num_elements(t.state_shape(name)))
               throw UserError("state '" + name + "' has another size than the array given");
             t.write_state(name, values.data());
           })
      // Of a rank; None: of the one that needs most.
      .def(
          "peak_bytes",
          [](TrainStep& t, const py::dict& fields, std::optional<int64_t> rank) {
            const ModelInputs inputs = model_inputs(fields);
            return rank ? t.plan(inputs, *rank).peak_bytes() : t.peak_bytes(inputs);
          },
          py::arg("fields"), py::arg("rank") = py::none())
      .def("bubble", [](TrainStep& t, const py::dict& fields) { return t.bubble(model_inputs(fields)); })
      .def("bytes_in_use", &TrainStep::bytes_in_use)
      .def("host_bytes_in_use", &TrainStep::host_bytes_in_use)
      // The policy for batches of this shape: what auto has chosen.
      .def("remat", [](const TrainStep& t, int64_t batch, int64_t seq) { return t.spec(batch, seq).remat.kind; })
      .def("planned_traffic",
           [](TrainStep& t, const py::dict& fields, int64_t rank) { return traffic_list(t.planned_traffic(model_inputs(fields), rank)); })
      .def("counted_traffic",
           [](TrainStep& t, const py::dict& fields, int64_t rank) { return traffic_list(t.counted_traffic(model_inputs(fields), rank)); })
      .def("transfer_seconds",
           [](TrainStep& t, const py::dict& fields, int64_t rank) { return t.transfer_seconds(model_inputs(fields), rank); })
      // A Recording of the steps that follow; None ends it.
      .def(
          "record", [](TrainStep& t, std::optional<Recording*> recording) { t.record(recording.value_or(nullptr)); }, py::arg("recording"),
          py::keep_alive<1, 2>())
      .def("explain", [](const TrainStep& t, int64_t batch, int64_t seq, const std::string& after) {
        return explain_train_step(t.spec(batch, seq), t.environment(), after);
      });
}

std::vector<SmallFile> small_files(const std::vector<std::pair<std::string, py::bytes>>& files) {
  std::vector<SmallFile> list;
  for (const auto& [path, bytes] : files) list.push_back({.path = path, .bytes = std::string(bytes), .make = nullptr});
  return list;
}

void bind_checkpoints(py::module_& m) {
  py::class_<TrainCheckpointer>(m, "TrainCheckpointer")
      .def(py::init<>())
      .def("save",
           [](TrainCheckpointer& c, Session& session, TrainStep& step, const std::string& folder,
              const std::vector<std::pair<std::string, py::bytes>>& files, uint64_t seed, const std::string& data, const std::string& run,
              int keep_last) {
             CheckpointRequest request{.folder = folder, .small_files = small_files(files), .state = {}, .keep_last = keep_last};
             request.state.step = step.steps();
             request.state.seed = seed;
             request.state.microbatches = step.options().microbatches;
             for (const std::string& axis : Mesh::axis_names()) request.state.mesh.emplace_back(axis, session.options().mesh.size_of(axis));
             request.state.data = data;
             request.state.run = run;
             const Session::Use use(session);
             const py::gil_scoped_release unlocked;
             c.save(session, step, std::move(request));
           })
      .def("poll", &TrainCheckpointer::poll, py::call_guard<py::gil_scoped_release>())
      .def("wait", &TrainCheckpointer::wait, py::call_guard<py::gil_scoped_release>())
      .def("staging_bytes", &TrainCheckpointer::staging_bytes);
  m.def("load_checkpoint", [](Session& session, TrainStep& step, const std::string& folder, bool reset_optimizer) {
    TrainerState state;
    {
      const Session::Use use(session);
      const py::gil_scoped_release unlocked;
      state = load_checkpoint(session, step, folder, reset_optimizer);
    }
    return py::make_tuple(state.data, state.run);
  });
  m.def("save_model", [](Session& session, const std::string& folder, const std::string& dtype,
                         const std::vector<std::pair<std::string, py::bytes>>& files, bool keep_quantized) {
    std::vector<SmallFile> small = small_files(files);
    const DType as = parse_dtype(dtype);
    const Session::Use use(session);
    const py::gil_scoped_release unlocked;
    save_model(session, folder, as, std::move(small), keep_quantized);
  });
  m.def("read_trainer_state", [](const std::string& folder) {
    const std::string path = folder + "/trainer/trainer.json";
    const TrainerState state = parse_trainer_state(read_file(path, kMaxTrainerStateBytes), path);
    py::dict fields;
    fields["step"] = state.step;
    fields["seed"] = state.seed;
    fields["microbatches"] = state.microbatches;
    fields["mesh"] = std::map<std::string, int64_t>(state.mesh.begin(), state.mesh.end());
    fields["data"] = state.data;
    fields["run"] = state.run;
    return fields;
  });
  m.def("remove_leftovers", &remove_leftovers);
  m.def("checkpoint_name", &checkpoint_name);
}

void bind_generation(py::module_& m) {
  py::class_<Generator>(m, "TextGenerator")
      .def(py::init<Session&>(), py::keep_alive<1, 2>())
      .def("generate", [](Generator& g, const py::list& requests, const py::object& on_token) {
        std::vector<GenerationRequest> list;
        for (const auto& item : requests) {
          const auto d = py::cast<py::dict>(item);
          GenerationRequest r;
          r.prompt = py::cast<std::vector<int32_t>>(d["prompt"]);
          r.max_new_tokens = py::cast<int64_t>(d["max_new_tokens"]);
          r.eos_ids = py::cast<std::vector<int32_t>>(d["eos_ids"]);
          r.id = py::cast<uint64_t>(d["id"]);
          r.sampling = {.do_sample = py::cast<bool>(d["do_sample"]),
                        .temperature = py::cast<double>(d["temperature"]),
                        .top_k = py::cast<int64_t>(d["top_k"]),
                        .top_p = py::cast<double>(d["top_p"]),
                        .min_p = py::cast<double>(d["min_p"]),
                        .seed = py::cast<uint64_t>(d["seed"])};
          list.push_back(std::move(r));
        }
        Generator::OnToken callback;
        if (!on_token.is_none()) {
          callback = [&](size_t request, int32_t id) {
            const py::gil_scoped_acquire locked;
            return py::cast<bool>(on_token(request, id));
          };
        }
        std::vector<GenerationOutput> outputs;
        {
          const py::gil_scoped_release unlocked;
          outputs = g.generate(list, callback);
        }
        py::list results;
        for (const GenerationOutput& output : outputs) results.append(py::make_tuple(output.ids, output.logprobs, output.finish_reason));
        return results;
      });
}

}  // namespace

void bind_model(py::module_& module) {
  bind_config(module);
  bind_session(module);
  bind_training(module);
  bind_checkpoints(module);
  bind_generation(module);
}

}  // namespace mw
