// The shards of one split as one stream of tokens and documents.
//
//   const TokenSplit split("data/train", {"data/train-00000.tokens", ...}, 4096);   // the name is used in errors
//   split.read(first, {ids, count});   split.document_end(first)
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_shard.h"

namespace mw {

class TokenSplit {
 public:
  // UserError when a shard is refused or has another vocabulary size, and when there is none.
  TokenSplit(std::string name, const std::vector<std::string>& shard_paths, int64_t vocab_size);

  const std::string& name() const { return name_; }
  const std::vector<TokenShard>& shards() const { return shards_; }
  int64_t vocab_size() const { return vocab_size_; }
  int64_t num_tokens() const { return starts_.back(); }
  int64_t num_documents() const { return num_documents_; }
  uint64_t fingerprint() const;  // of the content, from the shards' checksums

  void read(int64_t first, std::span<int32_t> ids) const;
  int64_t document_end(int64_t token) const;     // first token after the document that holds `token`
  std::vector<int64_t> document_starts() const;  // of all documents

 private:
  size_t shard_of(int64_t token) const;

  std::string name_;
  int64_t vocab_size_;
  std::vector<TokenShard> shards_;
  std::vector<int64_t> starts_{0};  // first token of each shard, and the end
  int64_t num_documents_ = 0;
};

}  // namespace mw
