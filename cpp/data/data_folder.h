// A data folder, docs/formats/token_shards.md: dataset.json, its token shards and the tokenizer's files.
//
//   const DataFolder folder = DataFolder::open("data");
//   const TokenSplit train = folder.open_split("train");    // UserError with the splits there are
//
// dataset.json is parsed strictly; every shard must have the counts and the checksum that it states.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/token_shard_writer.h"
#include "data/token_split.h"

namespace mw {

inline constexpr int64_t kMaxDatasetJsonBytes = 64 << 20;

struct SplitSummary {
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  int64_t text_bytes = 0;  // of the text that the tokens were made from: what bits per byte divides by
  std::vector<ShardSummary> shards;
};

struct DataFolder {
  std::string path;
  int64_t vocab_size = 0;
  int64_t eos_id = -1;    // -1: documents do not end in a token of their own
  std::string tokenizer;  // file name, "" when there is none
  std::map<std::string, SplitSummary> splits;

  static DataFolder open(const std::string& path);
  const SplitSummary& split(const std::string& name) const;
  TokenSplit open_split(const std::string& name) const;
};

// `what` names the text in errors.
DataFolder parse_data_folder(std::string_view text, const std::string& what);

}  // namespace mw
