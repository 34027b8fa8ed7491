#include "data/token_split.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "base/xxhash64.h"

namespace mw {

TokenSplit::TokenSplit(std::string name, const std::vector<std::string>& shard_paths, int64_t vocab_size)
    : name_(std::move(name)), vocab_size_(vocab_size) {
  if (shard_paths.empty()) throw UserError(printable(name_, 1000) + ": expected at least one token shard, found none");
  shards_.reserve(shard_paths.size());
  for (const std::string& path : shard_paths) {
    const TokenShard& shard = shards_.emplace_back(path);
    if (shard.vocab_size() != vocab_size) {
      throw UserError(concat_text(printable(path, 1000), ", byte ", ShardField::kVocabSize, ": expected the vocabulary size ", vocab_size,
                                  " of the data set, found ", shard.vocab_size()));
    }
    starts_.push_back(starts_.back() + shard.num_tokens());
    num_documents_ += shard.num_documents();
  }
}

uint64_t TokenSplit::fingerprint() const {
  Xxhash64 hash;
  for (const TokenShard& shard : shards_) {
    const uint64_t checksum = shard.checksum();
    hash.update(std::as_bytes(std::span(&checksum, 1)));
  }
  return hash.digest();
}

size_t TokenSplit::shard_of(int64_t token) const {
  return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), token) - starts_.begin()) - 1;
}

void TokenSplit::read(int64_t first, std::span<int32_t> ids) const {
  MW_CHECK(first >= 0 && static_cast<int64_t>(ids.size()) <= num_tokens() - first, name_, " ", first, " ", ids.size());
  for (size_t shard = shard_of(first); !ids.empty(); ++shard) {
    const auto count = static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(ids.size()), starts_[shard + 1] - first));
    shards_[shard].read(first - starts_[shard], ids.first(count));
    ids = ids.subspan(count);
    first += static_cast<int64_t>(count);
  }
}

int64_t TokenSplit::document_end(int64_t token) const {
  MW_CHECK(token >= 0 && token < num_tokens(), name_, " ", token);
  const size_t shard = shard_of(token);
  return starts_[shard] + shards_[shard].document_end(token - starts_[shard]);
}

std::vector<int64_t> TokenSplit::document_starts() const {
  std::vector<int64_t> all;
  all.reserve(static_cast<size_t>(num_documents_));
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (int64_t i = 0; i < shards_[shard].num_documents(); ++i) all.push_back(starts_[shard] + shards_[shard].document_start(i));
  }
  return all;
}

}  // namespace mw
