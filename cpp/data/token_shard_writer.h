// Writing token shards: documents come in pieces, files appear whole or not at all.
//
//   SplitWriter writer("data", "train", 4096);
//   writer.append(ids);  writer.append(more);  writer.end_document();      // any number of times
//   for (const ShardSummary& shard : writer.finish()) ...                  // data/train-00000.tokens, ...
//
// A document stands in one shard. Memory: one shard (64 MiB by default with two bytes per token) or the longest document.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_shard.h"

namespace mw {

inline constexpr int64_t kDefaultShardTokens = int64_t{1} << 25;

struct ShardSummary {
  std::string file;  // name within its folder
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  uint64_t checksum = 0;  // TokenShard::checksum
};

// Writes `path` through a temporary file beside it: fsync, rename, fsync of the folder. `document_starts` as in the file: the first
// is 0, the last the number of tokens. Returns the checksum of the header. UserError when it cannot be written.
uint64_t write_token_shard(const std::string& path, int64_t vocab_size, std::span<const std::byte> tokens,
                           std::span<const uint64_t> document_starts);

size_t token_bytes_for(int64_t vocab_size);

class SplitWriter {
 public:
  SplitWriter(std::string folder, std::string split, int64_t vocab_size, int64_t shard_tokens = kDefaultShardTokens);

  void append(std::span<const uint32_t> ids);  // to the current document; UserError on an id outside the vocabulary
  void end_document();                         // a document without tokens is left out
  std::vector<ShardSummary> finish();

 private:
  void flush();

  std::string folder_, split_;
  int64_t vocab_size_, shard_tokens_;
  size_t token_bytes_;
  std::vector<std::byte> tokens_;
  std::vector<uint64_t> starts_{0};
  std::vector<ShardSummary> shards_;
};

}  // namespace mw
