#include "train/checkpointing.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/dequantized.h"
#include "checkpoint/folder.h"
#include "checkpoint/open_weights.h"
#include "models/registry.h"

namespace mw {
namespace {

constexpr const char* kStateStem = "trainer/state";

// Every tensor of the files: parts, and the copies that are written beside them. `dtype`: of parameters that are not FP32 by nature.
TensorGroup weight_group(const Session& session, DType dtype) {
  TensorGroup group{"model", {}};
  for (const ParameterSpec& p : model_parameters(session.config(), dtype)) {
    for (int64_t i = 0; i < p.num_tensors(); ++i) group.tensors.push_back({p.tensor_name(i), p.type.dtype, p.hf_shape});
    for (const TensorCopy& copy : p.copies) {
      if (copy.written) group.tensors.push_back({copy.name, p.type.dtype, p.hf_shape});
    }
  }
  for (const std::string& name : session.untouched()) {
    const TensorInfo info = session.source()->info(name);
    if (!info.reads_as) throw UserError(session.source()->path() + ": " + name + " is " + info.stored + ", which cannot be written again");
    group.tensors.push_back({name, *info.reads_as, info.shape});
  }
  return group;
}

const DequantizedFolder& quantized_source(const Session& session) {
  const auto* published = dynamic_cast<const DequantizedFolder*>(session.source().get());
  if (!published || !published->is_quantized())
    throw UserError(
        "keep_quantized: expected a model that was read from a folder with FP8 or MXFP4 weights, found " +
        (session.source() ? session.source()->path() + ", which has none" : std::string("one that was not read from a folder")));
  if (session.is_changed())
    throw UserError("keep_quantized: the weights have changed since they were read from " + published->path() +
                    "; expected untouched ones. Save them in bfloat16 instead");
  return *published;
}

// The same tensors, each quantised one as the stored tensors that it was read from.
TensorGroup as_published(const DequantizedFolder& published, const TensorGroup& group) {
  TensorGroup stored{group.stem, {}};
  for (const TensorSpec& tensor : group.tensors) {
    if (!published.is_quantized(tensor.name)) {
      stored.tensors.push_back(tensor);
      continue;
    }
    for (const std::string& part : published.stored_parts(tensor.name)) {
      const StoredTensor& found = published.stored_tensor(part);
      const std::optional<DType> dtype = dtype_of_stored(found.dtype);
      stored.tensors.push_back({part, dtype.value_or(DType::kU8), found.shape, dtype ? "" : found.dtype});
    }
  }
  return stored;
}

// Of the stored tensors behind a quantised weight: FP8 values have the weight's own name, the others names that are hidden.
bool is_stored_part(const DequantizedFolder& published, const TensorSpec& tensor) {
  return published.is_quantized(tensor.name) || !published.contains(tensor.name);
}

// One tensor of weight_group: from the model or, where no parameter took it, from where it was loaded.
void read_weight(const Session& session, const TensorSpec& tensor, bool master, void* out, int64_t receiver = Engine::kEveryRank) {
  const std::vector<std::string>& untouched = session.untouched();
  if (std::binary_search(untouched.begin(), untouched.end(), tensor.name)) {
    session.source()->read(tensor.name, tensor.dtype, out);
  } else {
    session.read_tensor(tensor.name, tensor.dtype, out, master, receiver);
  }
}

// The ranks, where they are processes.
Communicator* ranks_of(Session& session) {
  World& world = session.engine().world();
  return world.is_shared() ? &world.rank(world.local_ranks()[0]) : nullptr;
}

// Hands every tensor of the files to the writer, in the process that writes it; from the others it is collected there.
void stage(Session& session, TrainStep* step, const std::vector<PlannedFile>& files, bool master, CheckpointWriter& writer) {
  const bool shared = session.engine().world().is_shared();
  std::vector<std::byte> values;
  for (const PlannedFile& file : files) {
    const int64_t receiver = shared ? file.writer : Engine::kEveryRank;
    for (const TensorSpec& tensor : file.tensors) {
      values.resize(static_cast<size_t>(tensor.num_bytes()));
      if (file.stem == kStateStem) {
        step->read_state(tensor.name, reinterpret_cast<float*>(values.data()), receiver);
      } else {
        read_weight(session, tensor, master, values.data(), receiver);
      }
      if (writer.writes(file)) writer.put(file.stem, tensor.name, whole(tensor.shape), tensor.dtype, values.data());
    }
  }
}

// "first_moment.model.norm.weight" has the shape of model.norm.weight.
TensorGroup state_group(const TrainStep& step) {
  TensorGroup group{kStateStem, {}};
  for (const std::string& name : step.state_names()) group.tensors.push_back({name, DType::kF32, step.state_shape(name)});
  return group;
}

// The optimizer's files as they were written; weights have their own check, which offers what to do.
void check_state_files(const std::string& folder) {
  if (!std::filesystem::exists(folder + "/" + kManifestName)) return;
  for (const auto& [path, expected] : read_manifest(folder)) {
    if (path.compare(0, 8, "trainer/") != 0) continue;
    const FileDigest found = digest_of_file(folder + "/" + path);
    if (found != expected) throw UserError(folder + "/" + path + ": is damaged: it differs from what " + kManifestName + " says");
  }
}

}  // namespace

void TrainCheckpointer::save(Session& session, TrainStep& step, CheckpointRequest request) {
  const DType dtype = session.options().dtype;
  const std::vector<TensorGroup> groups{weight_group(session, dtype), state_group(step)};
  SaveRequest save{.folder = request.folder,
                   .files = assign_files(groups, kMaxFileBytes, static_cast<int>(session.options().mesh.size())),
                   .small_files = std::move(request.small_files),
                   .keep_last = request.keep_last};
  save.small_files.push_back(
      {.path = "trainer/trainer.json", .bytes = "", .make = [state = std::move(request.state)](const FileDigests& digests) {
         TrainerState complete = state;
         for (const auto& [path, digest] : digests) {
           if (path.compare(0, 8, "trainer/") != 0) complete.weights[path] = digest;
         }
         return trainer_state_text(complete);
       }});
  const std::vector<PlannedFile> files = save.files;
  writer_.begin(std::move(save), ranks_of(session));
  stage(session, &step, files, false, writer_);
  writer_.launch();
}

TrainerState load_checkpoint(Session& session, TrainStep& step, const std::string& folder, bool reset_optimizer) {
  const std::string path = folder + "/trainer/trainer.json";
  const TrainerState state = parse_trainer_state(read_file(path, kMaxTrainerStateBytes), path);
  if (!reset_optimizer) {
    check_weights_match(state, folder);
    check_state_files(folder);
  }
  session.load(open_weights(folder));
  step.set_steps(state.step);
  if (reset_optimizer) return state;
  const std::vector<std::string> names = step.state_names();
  if (names.empty()) return state;
  const TensorFolder tensors = TensorFolder::open(folder + "/trainer", "state");
  std::vector<float> values;
  for (const std::string& name : names) {
    const Shape& shape = step.state_shape(name);
    if (!tensors.contains(name)) {
      throw UserError(folder + " holds no optimizer state '" + name + "'" + did_you_mean(name, tensors.names()) +
                      "; it was saved by another optimizer. Train with that one, or pass reset_optimizer=true");
    }
    if (tensors.tensor(name).shape != shape) {
      throw UserError(folder + ": optimizer state '" + name + "' has the shape " + shape_text(tensors.tensor(name).shape) + "; expected " +
                      shape_text(shape));
    }
    values.resize(static_cast<size_t>(num_elements(shape)));
    tensors.read(name, DType::kF32, values.data());
    step.write_state(name, values.data());
  }
  return state;
}

void save_model(Session& session, const std::string& folder, DType dtype, std::vector<SmallFile> small_files, bool keep_quantized) {
  Communicator* ranks = ranks_of(session);
  if (ranks && keep_quantized)
    throw UserError("keep_quantized: expected ranks that are threads of one process, found processes; `meshwright export` works in one");
  const DequantizedFolder* published = keep_quantized ? &quantized_source(session) : nullptr;
  std::vector<TensorGroup> groups{weight_group(session, dtype)};
  if (published) groups[0] = as_published(*published, groups[0]);
  const SaveRequest request{.folder = folder,
                            .files = assign_files(groups, kMaxFileBytes, ranks ? static_cast<int>(ranks->size()) : 1),
                            .small_files = std::move(small_files),
                            .keep_last = 0};
  if (ranks) {
    CheckpointWriter writer;
    writer.begin(request, ranks);
    stage(session, nullptr, request.files, true, writer);
    writer.launch();
    return writer.wait();
  }
  save_now(request, [&](const PlannedFile&, const TensorSpec& tensor, const Sink& sink) {
    if (published && is_stored_part(*published, tensor)) return sink(published->stored_bytes(tensor.name));
    std::vector<std::byte> values(static_cast<size_t>(tensor.num_bytes()));
    read_weight(session, tensor, true, values.data());
    sink(values);
  });
}

}  // namespace mw
