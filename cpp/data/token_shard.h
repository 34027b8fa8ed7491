// One file of tokens, docs/formats/token_shards.md: header, document table, block checksums, tokens.
//
//   const TokenShard shard("train-00000.tokens");      // UserError naming file, byte position, expected and found
//   shard.read(first, {ids, count});                   // checks each 64 KiB block the first time, and every id every time
//
// The reader trusts nothing in the file: all lengths and offsets are checked at opening, so its memory is bounded by a small share
// of the file's size, and no id at or above the vocabulary size ever leaves it.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/mapped_file.h"

namespace mw {

inline constexpr std::string_view kShardMagic = "MWTOKENS";
inline constexpr uint32_t kShardVersion = 1;
inline constexpr size_t kShardHeaderBytes = 64;
inline constexpr size_t kShardBlockBytes = 64 << 10;              // tokens under one checksum
inline constexpr int64_t kMaxVocabSize = int64_t{1} << 31;        // an id fits an i32
inline constexpr int64_t kMaxNarrowVocabSize = int64_t{1} << 16;  // up to here a token takes two bytes

// Byte positions of the header's fields.
struct ShardField {
  static constexpr size_t kMagic = 0, kVersion = 8, kTokenBytes = 12, kVocabSize = 16, kNumTokens = 24, kNumDocuments = 32, kTables = 40,
                          kReserved = 48, kHeader = 56;
};

class TokenShard {
 public:
  explicit TokenShard(const std::string& path);
  // From memory that outlives the shard; `name` stands for the path in errors.
  TokenShard(std::string name, std::span<const std::byte> bytes);

  const std::string& path() const { return path_; }
  int64_t vocab_size() const { return vocab_size_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_documents() const { return num_documents_; }
  uint64_t checksum() const { return checksum_; }  // of the header, which holds that of the tables, which hold those of the tokens

  // Document `document` holds the tokens [document_start(document), document_start(document + 1)).
  int64_t document_start(int64_t document) const;
  // The first token after the document that holds `token`.
  int64_t document_end(int64_t token) const;

  // Tokens [first, first + ids.size()), which must exist. Any number of threads at once.
  void read(int64_t first, std::span<int32_t> ids) const;
  // Reads everything once.
  void verify() const;

 private:
  TokenShard(const std::string& path, MappedFile file);
  void read_header();
  void check_tables() const;
  void check_block(size_t block) const;
  [[noreturn]] void refuse(size_t position, const std::string& problem) const;

  std::optional<MappedFile> file_;
  std::string path_;
  std::span<const std::byte> bytes_;
  int64_t vocab_size_ = 0, num_tokens_ = 0, num_documents_ = 0;
  size_t token_bytes_ = 0, num_blocks_ = 0;
  size_t sums_begin_ = 0, tokens_begin_ = 0;  // byte positions
  uint64_t checksum_ = 0;
  std::unique_ptr<std::atomic<uint64_t>[]> checked_;  // one bit per block
};

}  // namespace mw
