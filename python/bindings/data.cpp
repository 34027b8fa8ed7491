#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/error.h"
#include "base/file_writer.h"
#include "base/xxhash64.h"
#include "bindings.h"
#include "data/batch_adapter.h"
#include "data/data_folder.h"
#include "data/prefetcher.h"

namespace mw {
namespace {

// Hands the memory of `values` to NumPy.
template <typename T>
py::array_t<T> array_of(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  return py::array_t<T>(std::move(shape), kept->data(),
                        py::capsule(kept, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); }));
}

py::dict dict_of(Batch&& batch) {
  py::dict arrays;
  arrays["input_ids"] = array_of(std::move(batch.input_ids), {batch.rows, batch.seq});
  arrays["targets"] = array_of(std::move(batch.targets), {batch.rows, batch.seq});
  arrays["segment_ids"] = array_of(std::move(batch.segment_ids), {batch.rows, batch.seq});
  arrays["position_ids"] = array_of(std::move(batch.position_ids), {batch.rows, batch.seq});
  return arrays;
}

py::dict describe(const ShardSummary& shard) {
  py::dict row;
  row["file"] = shard.file;
  row["num_tokens"] = shard.num_tokens;
  row["num_documents"] = shard.num_documents;
  row["checksum"] = hex16(shard.checksum);
  return row;
}

std::shared_ptr<Loader> make_loader(const std::vector<std::pair<std::shared_ptr<TokenSplit>, double>>& sources, int64_t seq, uint64_t seed,
                                    bool shuffle) {
  std::vector<DataSource> all;
  for (const auto& [split, weight] : sources) all.push_back({split, weight});
  return std::make_shared<Loader>(std::move(all), LoaderSettings{.seq = seq, .seed = seed, .shuffle = shuffle});
}

// All tokens and the index of each document's first one.
py::tuple documents_of(const TokenSplit& split) {
  std::vector<int32_t> tokens(static_cast<size_t>(split.num_tokens()));
  {
    const py::gil_scoped_release released;
    split.read(0, tokens);
  }
  std::vector<int64_t> starts = split.document_starts();
  return py::make_tuple(array_of(std::move(tokens), {split.num_tokens()}), array_of(std::move(starts), {split.num_documents()}));
}

// Any array as a C-contiguous NumPy array without changing its elements: NumPy, torch, DLPack, nested lists.
py::array as_numpy(const std::string& name, const py::handle& value) {
  const py::module_ numpy = py::module_::import("numpy");
  try {
    const bool dlpack_only = !py::hasattr(value, "__array__") && py::hasattr(value, "__dlpack__");
    const py::object array = dlpack_only ? numpy.attr("from_dlpack")(value) : numpy.attr("asarray")(value);
    // ascontiguousarray would turn a scalar into a row; the shape must be what the user gave.
    return numpy.attr("require")(array, py::none(), "C").attr("reshape")(array.attr("shape"));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    throw UserError(name + ": expected an array [batch, seq] that NumPy can read, found " +
                    py::type::of(value).attr("__name__").cast<std::string>() + ": " + py::str(error.value()).cast<std::string>());
  }
}

ArrayView view_of(const py::array& array) {
  ArrayView view{array.dtype().kind(), array.dtype().itemsize(), {}, array.data()};
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  return view;
}

py::dict adapt(const py::dict& batch, int64_t vocab_size, int64_t mtp_depths) {
  const std::vector<std::string> names{"input_ids", "labels", "targets", "attention_mask", "segment_ids", "position_ids", "loss_weights"};
  UserBatch user;
  const std::map<std::string, std::optional<ArrayView>*> places{
      {"labels", &user.labels},           {"targets", &user.targets},           {"attention_mask", &user.attention_mask},
      {"segment_ids", &user.segment_ids}, {"position_ids", &user.position_ids}, {"loss_weights", &user.loss_weights}};
  std::vector<py::array> kept;
  bool found = false;
  for (const auto& [key, value] : batch) {
    const auto name = py::str(key).cast<std::string>();
    if (name != "input_ids" && !places.contains(name)) {
      throw UserError("batch: unknown key '" + name + "'" + did_you_mean(name, names) +
                      "; expected input_ids and any of labels, targets, attention_mask, segment_ids, position_ids, loss_weights");
    }
    if (value.is_none()) continue;
    const ArrayView view = view_of(kept.emplace_back(as_numpy(name, value)));
    if (name == "input_ids") {
      user.input_ids = view;
      found = true;
    } else {
      *places.at(name) = view;
    }
  }
  if (!found) throw UserError("batch: expected the key 'input_ids', found none");
  ModelBatch adapted = adapt_batch(user, vocab_size);
  std::vector<FurtherTokens> further;
  for (int64_t depth = 1; depth <= mtp_depths; ++depth) further.push_back(further_tokens(adapted, depth));
  const std::vector<py::ssize_t> shape{adapted.rows, adapted.seq};
  py::dict arrays;
  arrays["input_ids"] = array_of(std::move(adapted.input_ids), shape);
  arrays["targets"] = array_of(std::move(adapted.targets), shape);
  arrays["loss_weights"] = array_of(std::move(adapted.loss_weights), shape);
  arrays["segment_ids"] = array_of(std::move(adapted.segment_ids), shape);
  arrays["position_ids"] = array_of(std::move(adapted.position_ids), shape);
  for (size_t i = 0; i < further.size(); ++i) {
    const std::string k = "." + std::to_string(i + 1);
    arrays[py::str("mtp_input_ids" + k)] = array_of(std::move(further[i].input_ids), shape);
    arrays[py::str("mtp_targets" + k)] = array_of(std::move(further[i].targets), shape);
    arrays[py::str("mtp_loss_weights" + k)] = array_of(std::move(further[i].loss_weights), shape);
  }
  arrays["num_targets"] = adapted.num_targets;
  arrays["weight_sum"] = adapted.weight_sum;
  return arrays;
}

}  // namespace

void bind_data(py::module_& module) {
  using Released = py::call_guard<py::gil_scoped_release>;

  py::class_<SplitWriter>(module, "SplitWriter", "Writes the token shards of one split: SplitWriter(folder, split, vocab_size).")
      .def(py::init<std::string, std::string, int64_t, int64_t>(), py::arg("folder"), py::arg("split"), py::arg("vocab_size"),
           py::arg("shard_tokens") = kDefaultShardTokens)
      .def(
          "append", [](SplitWriter& writer, const std::vector<uint32_t>& ids) { writer.append(ids); }, py::arg("ids"),
          "Adds token ids to the current document.")
      .def("end_document", &SplitWriter::end_document, Released(), "Ends the current document; one without tokens is left out.")
      .def(
          "finish",
          [](SplitWriter& writer) {
            std::vector<ShardSummary> shards;
            {
              const py::gil_scoped_release released;
              shards = writer.finish();
            }
            py::list rows;
            for (const ShardSummary& shard : shards) rows.append(describe(shard));
            return rows;
          },
          "Writes what is left and describes every shard: file, num_tokens, num_documents, checksum.");

  module.def(
      "write_durably", [](const std::string& path, const py::bytes& bytes) { write_file(path, std::string_view(bytes)); }, py::arg("path"),
      py::arg("bytes"), "Writes a small file and fsyncs it; UserError when the disk is full.");
  module.def("make_folders", &make_folders, py::arg("path"), "Makes a folder and its parents; UserError when it cannot.");
  module.def("sync_folder", &sync_folder, py::arg("path"), "Makes the entries of a folder durable.");

  py::class_<TokenSplit, std::shared_ptr<TokenSplit>>(module, "TokenSplit",
                                                      "The memory-mapped shards of one split as one stream of tokens.")
      .def_property_readonly("vocab_size", &TokenSplit::vocab_size)
      .def_property_readonly("num_tokens", &TokenSplit::num_tokens)
      .def_property_readonly("num_documents", &TokenSplit::num_documents)
      .def_property_readonly("fingerprint", [](const TokenSplit& split) { return hex16(split.fingerprint()); })
      .def("documents", &documents_of, "(tokens i32[tokens], starts i64[documents]): everything, read and checked.");

  py::class_<DataFolder>(module, "DataFolder", "A folder that `prepare` wrote, its dataset.json checked.")
      .def(py::init(&DataFolder::open), py::arg("path"))
      .def_readonly("path", &DataFolder::path)
      .def_readonly("vocab_size", &DataFolder::vocab_size)
      .def_property_readonly("eos_id",
                             [](const DataFolder& folder) { return folder.eos_id < 0 ? std::nullopt : std::optional(folder.eos_id); })
      .def_property_readonly(
          "tokenizer", [](const DataFolder& folder) { return folder.tokenizer.empty() ? std::nullopt : std::optional(folder.tokenizer); })
      .def(
          "text_bytes", [](const DataFolder& folder, const std::string& split) { return folder.split(split).text_bytes; }, py::arg("split"))
      .def(
          "splits",
          [](const DataFolder& folder) {
            py::dict splits;
            for (const auto& [name, split] : folder.splits) {
              py::dict row;
              row["num_tokens"] = split.num_tokens;
              row["num_documents"] = split.num_documents;
              row["text_bytes"] = split.text_bytes;
              row["num_shards"] = split.shards.size();
              splits[py::str(name)] = row;
            }
            return splits;
          },
          "Split name -> num_tokens, num_documents, text_bytes, num_shards.")
      .def(
          "open_split",
          [](const DataFolder& folder, const std::string& name) { return std::make_shared<TokenSplit>(folder.open_split(name)); },
          py::arg("name"));

  py::class_<Loader, std::shared_ptr<Loader>>(module, "Loader", "Rows of batches as a pure function of their number.")
      .def(py::init(&make_loader), py::arg("sources"), py::arg("seq"), py::arg("seed"), py::arg("shuffle"))
      .def_property_readonly("samples_per_epoch", &Loader::samples_per_epoch)
      .def(
          "read",
          [](const Loader& loader, int64_t first, int64_t rows) {
            Batch batch;
            {
              const py::gil_scoped_release released;
              batch = loader.read(first, rows);
            }
            return dict_of(std::move(batch));
          },
          py::arg("first"), py::arg("rows"),
          "Samples [first, first + rows): input_ids, targets, segment_ids, position_ids, i32[batch, seq] each.");

  py::class_<Prefetcher>(module, "Prefetcher", "Reads the next batches in a thread of its own.")
      .def(py::init([](std::shared_ptr<Loader> loader, int64_t first, int64_t stride, int64_t rows) {
             return std::make_unique<Prefetcher>(std::move(loader), PrefetchRange{.first = first, .stride = stride, .rows = rows});
           }),
           py::arg("loader"), py::arg("first"), py::arg("stride"), py::arg("rows"))
      .def("next", [](Prefetcher& batches) {
        Batch batch;
        {
          const py::gil_scoped_release released;
          batch = batches.next();
        }
        return dict_of(std::move(batch));
      });

  module.def(
      "adapt_batch", &adapt, py::arg("batch"), py::arg("vocab_size"), py::arg("mtp_depths") = 0,
      "A user's batch as a model takes it: input_ids, targets, segment_ids, position_ids i32[batch, seq], loss_weights f32[batch, seq], "
      "num_targets, weight_sum; for multi-token prediction of depth k = 1.. also mtp_input_ids.k, mtp_targets.k, mtp_loss_weights.k.");
}

}  // namespace mw
