#include "data/token_shard_writer.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/file_writer.h"
#include "base/xxhash64.h"

namespace mw {
namespace {

template <typename T>
void store(std::span<std::byte> bytes, size_t position, T value) {
  std::memcpy(bytes.data() + position, &value, sizeof(T));
}

}  // namespace

size_t token_bytes_for(int64_t vocab_size) { return vocab_size <= kMaxNarrowVocabSize ? 2 : 4; }

uint64_t write_token_shard(const std::string& path, int64_t vocab_size, std::span<const std::byte> tokens,
                           std::span<const uint64_t> document_starts) {
  const size_t token_bytes = token_bytes_for(vocab_size);
  MW_CHECK(document_starts.size() >= 2 && document_starts.back() * token_bytes == tokens.size(), path);
  std::vector<uint64_t> tables(document_starts.begin(), document_starts.end());
  for (size_t begin = 0; begin < tokens.size(); begin += kShardBlockBytes) {
    tables.push_back(xxhash64(tokens.subspan(begin, std::min(kShardBlockBytes, tokens.size() - begin))));
  }
  std::array<std::byte, kShardHeaderBytes> header{};
  std::memcpy(header.data(), kShardMagic.data(), kShardMagic.size());
  store<uint32_t>(header, ShardField::kVersion, kShardVersion);
  store<uint32_t>(header, ShardField::kTokenBytes, static_cast<uint32_t>(token_bytes));
  store<uint64_t>(header, ShardField::kVocabSize, static_cast<uint64_t>(vocab_size));
  store<uint64_t>(header, ShardField::kNumTokens, tokens.size() / token_bytes);
  store<uint64_t>(header, ShardField::kNumDocuments, document_starts.size() - 1);
  store<uint64_t>(header, ShardField::kTables, xxhash64(std::as_bytes(std::span(tables))));
  const uint64_t checksum = xxhash64(std::span(header).first(ShardField::kHeader));
  store<uint64_t>(header, ShardField::kHeader, checksum);

  const std::string unfinished = path + ".unfinished";
  try {
    FileWriter file(unfinished);
    file.write(header);
    file.write(std::as_bytes(std::span(tables)));
    file.write(tokens);
    file.finish();
    if (::rename(unfinished.c_str(), path.c_str()) != 0) throw UserError(system_problem(path, "rename to this name", errno));
  } catch (...) {
    ::unlink(unfinished.c_str());
    throw;
  }
  const std::string parent = std::filesystem::path(path).parent_path().string();
  sync_folder(parent.empty() ? "." : parent);
  return checksum;
}

SplitWriter::SplitWriter(std::string folder, std::string split, int64_t vocab_size, int64_t shard_tokens)
    : folder_(std::move(folder)), split_(std::move(split)), vocab_size_(vocab_size), shard_tokens_(shard_tokens) {
  if (vocab_size < 1 || vocab_size > kMaxVocabSize) {
    throw UserError(concat_text("expected a vocabulary size in 1..", kMaxVocabSize, ", found ", vocab_size));
  }
  if (shard_tokens < 1) throw UserError(concat_text("expected at least 1 token per shard, found ", shard_tokens));
  token_bytes_ = token_bytes_for(vocab_size);
}

void SplitWriter::append(std::span<const uint32_t> ids) {
  const size_t before = tokens_.size();
  tokens_.resize(before + ids.size() * token_bytes_);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<int64_t>(ids[i]) >= vocab_size_) {
      tokens_.resize(before);
      throw UserError(concat_text(split_, ", document ", starts_.size() - 1, ": expected token ids below the vocabulary size ", vocab_size_,
                                  ", found ", ids[i]));
    }
    std::memcpy(tokens_.data() + before + i * token_bytes_, &ids[i], token_bytes_);
  }
}

void SplitWriter::end_document() {
  const uint64_t end = tokens_.size() / token_bytes_;
  if (end == starts_.back()) return;
  starts_.push_back(end);
  if (end >= static_cast<uint64_t>(shard_tokens_)) flush();
}

void SplitWriter::flush() {
  char number[16];
  ::snprintf(number, sizeof number, "%05zu", shards_.size());
  ShardSummary shard{split_ + "-" + number + ".tokens", static_cast<int64_t>(starts_.back()), static_cast<int64_t>(starts_.size() - 1)};
  shard.checksum = write_token_shard(folder_ + "/" + shard.file, vocab_size_, tokens_, starts_);
  shards_.push_back(std::move(shard));
  tokens_.clear();
  starts_.assign(1, 0);
}

std::vector<ShardSummary> SplitWriter::finish() {
  end_document();
  if (starts_.size() > 1) flush();
  return std::exchange(shards_, {});
}

}  // namespace mw
