// What the tests of this room share: shards and splits of known tokens.
#pragma once
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/xxhash64.h"
#include "data/loader.h"
#include "data/token_shard_writer.h"
#include "temporary_folder.h"

namespace mw {

// Documents of the given lengths; token i of the stream is i modulo the vocabulary.
inline std::vector<std::string> write_counting_split(const TemporaryFolder& folder, const std::string& name, int64_t vocab,
                                                     const std::vector<int64_t>& lengths, int64_t shard_tokens = kDefaultShardTokens) {
  SplitWriter writer(folder.path, name, vocab, shard_tokens);
  uint32_t next = 0;
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      const uint32_t id = next++ % static_cast<uint32_t>(vocab);
      writer.append({&id, 1});
    }
    writer.end_document();
  }
  std::vector<std::string> paths;
  for (const ShardSummary& shard : writer.finish()) paths.push_back(folder / shard.file);
  return paths;
}

inline std::shared_ptr<const TokenSplit> counting_split(const TemporaryFolder& folder, const std::string& name, int64_t vocab,
                                                        const std::vector<int64_t>& lengths, int64_t shard_tokens = kDefaultShardTokens) {
  return std::make_shared<TokenSplit>(name, write_counting_split(folder, name, vocab, lengths, shard_tokens), vocab);
}

template <typename T>
void put_field(std::string& bytes, size_t position, T value) {
  std::memcpy(bytes.data() + position, &value, sizeof(T));
}

inline std::span<const std::byte> bytes_of(const std::string& bytes, size_t begin, size_t end) {
  return std::as_bytes(std::span(bytes)).subspan(begin, end - begin);
}

// Makes the header's own checksum right again, as a hostile writer would.
inline void seal_header(std::string& bytes) { put_field(bytes, ShardField::kHeader, xxhash64(bytes_of(bytes, 0, ShardField::kHeader))); }

inline void seal_tables(std::string& bytes, size_t tokens_begin) {
  put_field(bytes, ShardField::kTables, xxhash64(bytes_of(bytes, kShardHeaderBytes, tokens_begin)));
  seal_header(bytes);
}

}  // namespace mw
