#include "data/data_folder.h"

#include <filesystem>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"
#include "base/xxhash64.h"

namespace mw {
namespace {

using Json = nlohmann::json;

// Reads members of one object, `where` being its place in the file.
class Members {
 public:
  Members(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) throw UserError(where_ + ": expected an object, found " + json.type_name());
  }
  const Json& at(const std::string& key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) throw UserError(where_ + ": expected the key '" + key + "', found none");
    return *found;
  }
  int64_t integer(const std::string& key, int64_t least, int64_t most = std::numeric_limits<int64_t>::max()) const {
    const Json& value = at(key);
    const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{1} << 62);
    if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most) {
      throw UserError(concat_text(where_, ", '", key, "': expected an integer of at least ", least,
                                  most == std::numeric_limits<int64_t>::max() ? "" : concat_text(" and at most ", most), ", found ",
                                  printable(value.dump(-1, ' ', false, Json::error_handler_t::replace))));
    }
    return value.get<int64_t>();
  }
  std::string text(const std::string& key) const {
    const Json& value = at(key);
    if (!value.is_string()) throw UserError(where_ + ", '" + key + "': expected a string, found " + value.type_name());
    return value.get<std::string>();
  }
  std::string file_name(const std::string& key) const {
    const std::string name = text(key);
    const bool plain =
        !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
    if (!plain) throw UserError(where_ + ", '" + key + "': expected the name of a file in this folder, found " + in_quotes(name));
    return name;
  }

 private:
  const Json& json_;
  std::string where_;
};

uint64_t parse_checksum(const std::string& text, const std::string& where) {
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw UserError(where + ", 'checksum': expected 16 lower-case hexadecimal digits, found " + in_quotes(text));
  }
  return std::stoull(text, nullptr, 16);
}

SplitSummary parse_split(const Json& json, const std::string& where) {
  const Members members(json, where);
  SplitSummary split;
  split.num_tokens = members.integer("num_tokens", 0);
  split.num_documents = members.integer("num_documents", 0);
  split.text_bytes = members.integer("text_bytes", 0);
  const Json& shards = members.at("shards");
  if (!shards.is_array()) throw UserError(where + ", 'shards': expected an array, found " + std::string(shards.type_name()));
  int64_t num_tokens = 0, num_documents = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string place = concat_text(where, ", shard ", i);
    const Members shard(shards[i], place);
    split.shards.push_back({shard.file_name("file"), shard.integer("num_tokens", 1, split.num_tokens - num_tokens),
                            shard.integer("num_documents", 1, split.num_documents - num_documents), 0});
    split.shards.back().checksum = parse_checksum(shard.text("checksum"), place);
    num_tokens += split.shards.back().num_tokens;
    num_documents += split.shards.back().num_documents;
  }
  if (num_tokens != split.num_tokens || num_documents != split.num_documents) {
    throw UserError(concat_text(where, ": expected shards of together ", split.num_tokens, " tokens and ", split.num_documents,
                                " documents, found ", num_tokens, " and ", num_documents));
  }
  return split;
}

}  // namespace

DataFolder parse_data_folder(std::string_view text, const std::string& what) {
  const Json json = parse_json_strict(text, what);
  const std::string where = printable(what, 1000);
  const Members members(json, where);
  if (const std::string format = members.text("format"); format != "meshwright-tokens") {
    throw UserError(where + ", 'format': expected 'meshwright-tokens', found " + in_quotes(format));
  }
  members.integer("version", 1, 1);
  DataFolder folder;
  folder.vocab_size = members.integer("vocab_size", 1, kMaxVocabSize);
  folder.eos_id = members.at("eos_id").is_null() ? -1 : members.integer("eos_id", 0, folder.vocab_size - 1);
  folder.tokenizer = members.at("tokenizer").is_null() ? "" : members.file_name("tokenizer");
  const Json& splits = members.at("splits");
  if (!splits.is_object()) throw UserError(where + ", 'splits': expected an object, found " + std::string(splits.type_name()));
  for (const auto& [name, split] : splits.items()) folder.splits[name] = parse_split(split, where + ", split " + in_quotes(name));
  return folder;
}

DataFolder DataFolder::open(const std::string& path) {
  const std::filesystem::path file = std::filesystem::path(path) / "dataset.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) {
    throw UserError(printable(path, 1000) + ": expected a data folder with dataset.json, found " +
                    (std::filesystem::is_directory(path, ignored) ? "a folder without it"
                     : std::filesystem::exists(path, ignored)     ? "a file"
                                                                  : "nothing there") +
                    " (`meshwright prepare` makes one)");
  }
  DataFolder folder = parse_data_folder(read_file(file.string(), kMaxDatasetJsonBytes), file.string());
  folder.path = path;
  return folder;
}

const SplitSummary& DataFolder::split(const std::string& name) const {
  const auto found = splits.find(name);
  if (found != splits.end() && !found->second.shards.empty()) return found->second;
  std::vector<std::string> names;
  std::string list;
  for (const auto& [other, summary] : splits) {
    if (summary.shards.empty()) continue;
    names.push_back(other);
    list += (list.empty() ? "" : ", ") + in_quotes(other);
  }
  throw UserError(printable(path, 1000) + ": no split " + in_quotes(name) +
                  (found != splits.end() ? " with any token in it" : did_you_mean(name, names)) + "; it has " +
                  (list.empty() ? "none" : list));
}

TokenSplit DataFolder::open_split(const std::string& name) const {
  const SplitSummary& summary = split(name);
  std::vector<std::string> paths;
  for (const ShardSummary& shard : summary.shards) paths.push_back((std::filesystem::path(path) / shard.file).string());
  TokenSplit opened((std::filesystem::path(path) / name).string(), paths, vocab_size);
  for (size_t i = 0; i < paths.size(); ++i) {
    const TokenShard& shard = opened.shards()[i];
    const ShardSummary& stated = summary.shards[i];
    if (shard.checksum() != stated.checksum || shard.num_tokens() != stated.num_tokens || shard.num_documents() != stated.num_documents) {
      throw UserError(concat_text(printable(paths[i], 1000), ": expected the shard that dataset.json states (", stated.num_tokens,
                                  " tokens, ", stated.num_documents, " documents, checksum ", hex16(stated.checksum), "), found ",
                                  shard.num_tokens(), " tokens, ", shard.num_documents(), " documents, checksum ",
                                  hex16(shard.checksum())));
    }
  }
  return opened;
}

}  // namespace mw
