#include "data/token_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/printable.h"
#include "base/xxhash64.h"

namespace mw {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

template <typename T>
T load(std::span<const std::byte> bytes, size_t position) {
  T value;
  std::memcpy(&value, bytes.data() + position, sizeof(T));
  return value;
}

}  // namespace

TokenShard::TokenShard(const std::string& path) : TokenShard(path, MappedFile(path)) {}

TokenShard::TokenShard(const std::string& path, MappedFile file) : TokenShard(path, file.bytes()) { file_.emplace(std::move(file)); }

TokenShard::TokenShard(std::string name, std::span<const std::byte> bytes) : path_(std::move(name)), bytes_(bytes) {
  read_header();
  check_tables();
  checked_ = std::make_unique<std::atomic<uint64_t>[]>((num_blocks_ + 63) / 64);
}

void TokenShard::refuse(size_t position, const std::string& problem) const {
  throw UserError(concat_text(printable(path_, 1000), ", byte ", position, ": ", problem));
}

void TokenShard::read_header() {
  if (bytes_.size() < kShardHeaderBytes) {
    refuse(bytes_.size(), concat_text("expected a token shard's header of ", kShardHeaderBytes, " bytes, found the end of the file"));
  }
  const std::string_view magic(reinterpret_cast<const char*>(bytes_.data()), kShardMagic.size());
  if (magic != kShardMagic) refuse(0, concat_text("expected '", kShardMagic, "', found ", in_quotes(magic), " (is it a token shard?)"));
  const auto version = load<uint32_t>(bytes_, ShardField::kVersion);
  if (version != kShardVersion) {
    refuse(ShardField::kVersion, concat_text("expected format version ", kShardVersion, ", found ", version));
  }
  checksum_ = load<uint64_t>(bytes_, ShardField::kHeader);
  if (const uint64_t sum = xxhash64(bytes_.first(ShardField::kHeader)); sum != checksum_) {
    refuse(ShardField::kHeader, concat_text("the header's checksum: expected ", hex16(sum), ", found ", hex16(checksum_)));
  }
  const auto token_bytes = load<uint32_t>(bytes_, ShardField::kTokenBytes);
  if (token_bytes != 2 && token_bytes != 4)
    refuse(ShardField::kTokenBytes, concat_text("expected 2 or 4 bytes per token, found ", token_bytes));
  const auto vocab_size = load<uint64_t>(bytes_, ShardField::kVocabSize);
  const int64_t most = token_bytes == 2 ? kMaxNarrowVocabSize : kMaxVocabSize;
  if (vocab_size < 1 || vocab_size > static_cast<uint64_t>(most)) {
    refuse(ShardField::kVocabSize, concat_text("expected a vocabulary size in 1..", most, ", found ", vocab_size));
  }
  // With both counts at most the file's size, none of the sums below can wrap.
  const auto num_tokens = load<uint64_t>(bytes_, ShardField::kNumTokens);
  if (num_tokens < 1 || num_tokens > bytes_.size() / token_bytes) {
    refuse(ShardField::kNumTokens, concat_text("expected a number of tokens in 1..", bytes_.size() / token_bytes, " (the file has ",
                                               bytes_.size(), " bytes), found ", num_tokens));
  }
  const auto num_documents = load<uint64_t>(bytes_, ShardField::kNumDocuments);
  if (num_documents < 1 || num_documents > num_tokens) {
    refuse(ShardField::kNumDocuments,
           concat_text("expected a number of documents in 1..", num_tokens, " (none is empty), found ", num_documents));
  }
  if (const auto reserved = load<uint64_t>(bytes_, ShardField::kReserved)) {
    refuse(ShardField::kReserved, concat_text("expected eight zero bytes, found ", reserved));
  }
  num_blocks_ = (num_tokens * token_bytes + kShardBlockBytes - 1) / kShardBlockBytes;
  sums_begin_ = kShardHeaderBytes + 8 * (num_documents + 1);
  tokens_begin_ = sums_begin_ + 8 * num_blocks_;
  if (const size_t expected = tokens_begin_ + num_tokens * token_bytes; bytes_.size() != expected) {
    refuse(std::min(expected, bytes_.size()),
           concat_text("expected the file to end at byte ", expected, " (", num_documents, " documents, ", num_tokens, " tokens of ",
                       token_bytes, " bytes), found ", bytes_.size(), bytes_.size() < expected ? " bytes: it is truncated" : " bytes"));
  }
  token_bytes_ = token_bytes;
  vocab_size_ = static_cast<int64_t>(vocab_size);
  num_tokens_ = static_cast<int64_t>(num_tokens);
  num_documents_ = static_cast<int64_t>(num_documents);
}

void TokenShard::check_tables() const {
  const auto stored = load<uint64_t>(bytes_, ShardField::kTables);
  const uint64_t sum = xxhash64(bytes_.subspan(kShardHeaderBytes, tokens_begin_ - kShardHeaderBytes));
  if (sum != stored) {
    refuse(kShardHeaderBytes,
           concat_text("the tables' checksum: expected ", hex16(stored), " (byte ", ShardField::kTables, "), found ", hex16(sum)));
  }
  uint64_t before = 0;
  for (int64_t i = 0; i <= num_documents_; ++i) {
    const size_t position = kShardHeaderBytes + 8 * static_cast<size_t>(i);
    const auto start = load<uint64_t>(bytes_, position);
    if (i == 0 && start != 0) refuse(position, concat_text("expected document 0 to start at token 0, found ", start));
    if (i > 0 && (start <= before || start > static_cast<uint64_t>(num_tokens_))) {
      refuse(position, concat_text("expected document ", i - 1, " to end in ", before + 1, "..", num_tokens_, ", found ", start));
    }
    before = start;
  }
  if (before != static_cast<uint64_t>(num_tokens_)) {
    refuse(sums_begin_ - 8, concat_text("expected the last document to end at token ", num_tokens_, ", found ", before));
  }
}

int64_t TokenShard::document_start(int64_t document) const {
  MW_CHECK(document >= 0 && document <= num_documents_, document);
  return load<int64_t>(bytes_, kShardHeaderBytes + 8 * static_cast<size_t>(document));
}

int64_t TokenShard::document_end(int64_t token) const {
  MW_CHECK(token >= 0 && token < num_tokens_, token);
  int64_t below = 0, above = num_documents_;  // start(below) <= token < start(above)
  while (above - below > 1) {
    const int64_t middle = below + (above - below) / 2;
    (document_start(middle) <= token ? below : above) = middle;
  }
  const int64_t end = document_start(above);
  // The table was in order when it was opened; callers' loops rely on it.
  if (end <= token || end > num_tokens_) refuse(kShardHeaderBytes + 8 * static_cast<size_t>(above), "the file changed while it was in use");
  return end;
}

void TokenShard::check_block(size_t block) const {
  const size_t begin = tokens_begin_ + block * kShardBlockBytes;
  const uint64_t sum = xxhash64(bytes_.subspan(begin, std::min(kShardBlockBytes, bytes_.size() - begin)));
  if (const auto stored = load<uint64_t>(bytes_, sums_begin_ + 8 * block); sum != stored) {
    refuse(begin, concat_text("the checksum of token block ", block, ": expected ", hex16(stored), ", found ", hex16(sum)));
  }
  checked_[block / 64].fetch_or(uint64_t{1} << (block % 64), std::memory_order_relaxed);
}

void TokenShard::read(int64_t first, std::span<int32_t> ids) const {
  MW_CHECK(first >= 0 && static_cast<int64_t>(ids.size()) <= num_tokens_ - first, first, " ", ids.size());
  if (ids.empty()) return;
  const size_t begin = static_cast<size_t>(first) * token_bytes_, end = begin + ids.size() * token_bytes_;
  for (size_t block = begin / kShardBlockBytes; block <= (end - 1) / kShardBlockBytes; ++block) {
    if (!(checked_[block / 64].load(std::memory_order_relaxed) >> (block % 64) & 1)) check_block(block);
  }
  const std::byte* from = bytes_.data() + tokens_begin_ + begin;
  uint32_t largest = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    uint32_t id = 0;
    std::memcpy(&id, from + i * token_bytes_, token_bytes_);
    largest = std::max(largest, id);
    ids[i] = static_cast<int32_t>(id);
  }
  if (static_cast<int64_t>(largest) < vocab_size_) return;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    if (static_cast<int64_t>(id) >= vocab_size_) {
      refuse(tokens_begin_ + begin + i * token_bytes_,
             concat_text("token ", first + static_cast<int64_t>(i), ": expected an id below the vocabulary size ", vocab_size_, ", found ",
                         id));
    }
  }
}

void TokenShard::verify() const {
  std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(num_tokens_, 1 << 16)));
  for (int64_t first = 0; first < num_tokens_; first += static_cast<int64_t>(ids.size())) {
    read(first, std::span(ids).first(static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(ids.size()), num_tokens_ - first))));
  }
}

}  // namespace mw
