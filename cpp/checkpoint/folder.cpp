#include "checkpoint/folder.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() < 256 &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

std::map<std::string, std::string> parse_tensor_index(std::string_view text, std::string_view what) {
  const std::string name = printable(what, 1000);
  const nlohmann::json index = parse_json_strict(text, what);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw UserError(name + ": expected an object with the key 'weight_map' (tensor name -> file name)");
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      throw UserError(name + ": the file of tensor " + in_quotes(tensor) + " should be a string, found " + file.type_name());
    const std::string& file_name = file.get_ref<const std::string&>();
    if (!is_plain_name(file_name)) {
      throw UserError(name + ": tensor " + in_quotes(tensor) + " is said to be in " + in_quotes(file_name) +
                      "; expected the name of a file in the same folder");
    }
    files[tensor] = file_name;
  }
  return files;
}

std::string tensor_index_text(const std::map<std::string, std::string>& weight_map, int64_t total_bytes) {
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total_bytes;
  index["weight_map"] = weight_map;
  return index.dump(2) + "\n";
}

TensorFolder TensorFolder::open(const std::string& folder, const std::string& stem) {
  const std::string single = folder + "/" + stem + ".safetensors", index_path = single + ".index.json";
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw UserError(printable(folder, 1000) + ": expected a folder with " + stem + ".safetensors or " + stem +
                    ".safetensors.index.json, found " + (exists(folder) ? "a file" : "nothing"));
  }
  if (exists(single)) {  // first, as transformers does
    TensorFolder opened = open_file(single);
    opened.path_ = folder;
    return opened;
  }
  if (!exists(index_path)) {
    throw UserError(
        printable(folder, 1000) + ": neither " + stem + ".safetensors nor " + stem + ".safetensors.index.json is in this folder" +
        (exists(folder + "/pytorch_model.bin") ? " (pytorch_model.bin is a pickle, which is never read: convert it to safetensors)" : ""));
  }
  TensorFolder opened;
  opened.path_ = folder;
  const std::map<std::string, std::string> weight_map = parse_tensor_index(read_file(index_path, kMaxIndexBytes), index_path);
  std::map<std::string, size_t> file_numbers;
  for (const auto& [tensor, file] : weight_map) file_numbers.emplace(file, 0);
  opened.files_.reserve(file_numbers.size());
  for (auto& [file, number] : file_numbers) {
    if (!exists(folder + "/" + file))
      throw UserError(printable(index_path, 1000) + ": the file " + in_quotes(file) + " that it lists is missing");
    number = opened.files_.size();
    opened.files_.push_back(SafetensorsFile::open(folder + "/" + file));
  }
  for (const auto& [tensor, file] : weight_map) {
    const size_t number = file_numbers.at(file);
    const StoredTensor* stored = opened.files_[number].find(tensor);
    if (!stored)
      throw UserError(printable(index_path, 1000) + ": tensor " + in_quotes(tensor) + " is not in " + in_quotes(file) +
                      ", where the index puts it");
    opened.places_[tensor] = {number, stored};
    opened.names_.push_back(tensor);
  }
  return opened;
}

TensorFolder TensorFolder::open_file(const std::string& path) {
  TensorFolder opened;
  opened.path_ = path;
  opened.files_.push_back(SafetensorsFile::open(path));
  for (const StoredTensor& tensor : opened.files_[0].tensors()) opened.places_[tensor.name] = {0, &tensor};
  for (const auto& [name, place] : opened.places_) opened.names_.push_back(name);
  return opened;
}

const TensorFolder::Place& TensorFolder::place(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    throw UserError(printable(path_, 1000) + ": has no tensor " + in_quotes(name) +
                    (name.size() < 200 && names_.size() < 5000 ? did_you_mean(name, names_) : ""));
  }
  return found->second;
}

const StoredTensor& TensorFolder::tensor(const std::string& name) const { return *place(name).tensor; }

TensorInfo TensorFolder::info(const std::string& name) const {
  const StoredTensor& stored = tensor(name);
  return {stored.shape, stored.dtype, dtype_of_stored(stored.dtype)};
}

const SafetensorsFile& TensorFolder::file_of(const std::string& name) const { return files_[place(name).file]; }

int64_t TensorFolder::num_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, place] : places_) bytes += place.tensor->num_bytes();
  return bytes;
}

void TensorFolder::read(const std::string& name, const Slice& slice, DType as, void* to) const {
  const Place& at = place(name);
  files_[at.file].read(*at.tensor, slice, as, to);
}

}  // namespace mw
