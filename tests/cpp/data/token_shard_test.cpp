#include "data/token_shard.h"

#include <sys/resource.h>

#include <filesystem>
#include <random>

#include "base/error.h"
#include "data/shards.h"
#include "runner.h"

namespace mw {
namespace {

// Three documents of 3, 1 and 4 tokens: tables at 64 (offsets) and 96 (one block), tokens at 104, 120 bytes in all.
std::string small_shard() {
  const TemporaryFolder folder;
  return get_file(write_counting_split(folder, "train", 100, {3, 1, 4})[0]);
}

void expect_refused(const std::string& bytes, const std::string& at, const std::string& expected, const std::string& found) {
  const TemporaryFolder folder;
  put_file(folder / "x.tokens", bytes);
  EXPECT_ERROR(UserError, { TokenShard(folder / "x.tokens").verify(); }, "x.tokens, byte " + at + ":", expected, found);
}

template <typename T>
std::string with_field(size_t position, T value) {
  std::string bytes = small_shard();
  put_field(bytes, position, value);
  seal_header(bytes);
  return bytes;
}

std::string with_offset(size_t index, uint64_t value) {
  std::string bytes = small_shard();
  put_field(bytes, kShardHeaderBytes + 8 * index, value);
  seal_tables(bytes, 104);
  return bytes;
}

int64_t resident_bytes() {
  long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  const int fields = std::fscanf(file, "%ld %ld", &pages, &resident);
  std::fclose(file);
  return fields == 2 ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

TEST(data, shard_round_trip) {
  const TemporaryFolder folder;
  for (const int64_t vocab : {int64_t{100}, int64_t{65536}, int64_t{65537}, int64_t{200000}}) {
    std::vector<int64_t> lengths(50);
    std::iota(lengths.begin(), lengths.end(), 1500);
    const auto paths = write_counting_split(folder, "v" + std::to_string(vocab), vocab, lengths, 20000);
    EXPECT(paths.size() > 2);
    int64_t next = 0;
    size_t document = 0;
    for (const std::string& path : paths) {
      const TokenShard shard(path);
      shard.verify();
      EXPECT_EQ(shard.vocab_size(), vocab);
      EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(path)) > shard.num_tokens() * (vocab <= 65536 ? 2 : 4), true);
      std::vector<int32_t> ids(static_cast<size_t>(shard.num_tokens()));
      shard.read(0, ids);
      for (const int32_t id : ids) EXPECT_EQ(id, static_cast<int32_t>(next++ % vocab));
      for (int64_t d = 0; d < shard.num_documents(); ++d) {
        EXPECT_EQ(shard.document_start(d + 1) - shard.document_start(d), lengths[document++]);
        EXPECT_EQ(shard.document_end(shard.document_start(d)), shard.document_start(d + 1));
        EXPECT_EQ(shard.document_end(shard.document_start(d + 1) - 1), shard.document_start(d + 1));
      }
    }
    EXPECT_EQ(document, lengths.size());
  }
}

TEST(data, shard_bytes_are_as_documented) {
  const std::string bytes = small_shard();
  EXPECT_EQ(bytes.size(), size_t{120});
  const std::string begin = std::string("MWTOKENS") + std::string("\1\0\0\0\2\0\0\0", 8) + std::string("\x64\0\0\0\0\0\0\0", 8) +
                            std::string("\x08\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0", 16);
  EXPECT_EQ(bytes.substr(0, 40), begin);
  EXPECT_EQ(bytes.substr(64, 32), std::string("\0\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0", 32));
  EXPECT_EQ(bytes.substr(104), std::string("\0\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0", 16));
}

TEST(data, shard_header_is_checked) {
  expect_refused("", "0", "header of 64 bytes", "the end of the file");
  expect_refused(small_shard().substr(0, 63), "63", "header of 64 bytes", "the end of the file");
  expect_refused("PK" + small_shard().substr(2), "0", "expected 'MWTOKENS'", "found 'PKTOKENS'");
  expect_refused(with_field<uint32_t>(8, 2), "8", "expected format version 1", "found 2");
  expect_refused(with_field<uint32_t>(12, 3), "12", "2 or 4 bytes per token", "found 3");
  expect_refused(with_field<uint64_t>(16, 0), "16", "in 1..65536", "found 0");
  expect_refused(with_field<uint64_t>(16, 65537), "16", "in 1..65536", "found 65537");
  expect_refused(with_field<uint64_t>(24, 0), "24", "number of tokens in 1..60", "found 0");
  expect_refused(with_field<uint64_t>(24, ~uint64_t{0}), "24", "the file has 120 bytes", "found 18446744073709551615");
  expect_refused(with_field<uint64_t>(24, uint64_t{1} << 63), "24", "number of tokens", "found 9223372036854775808");
  expect_refused(with_field<uint64_t>(32, 0), "32", "number of documents in 1..8", "found 0");
  expect_refused(with_field<uint64_t>(32, (uint64_t{1} << 61) - 1), "32", "in 1..8", "found 2305843009213693951");
  expect_refused(with_field<uint64_t>(48, 7), "48", "eight zero bytes", "found 7");
  std::string flipped = small_shard();
  flipped[20] ^= 1;
  expect_refused(flipped, "56", "the header's checksum", "found");
}

TEST(data, shard_length_is_checked) {
  expect_refused(small_shard().substr(0, 119), "119", "expected the file to end at byte 120", "found 119 bytes: it is truncated");
  expect_refused(small_shard().substr(0, 70), "70", "expected the file to end at byte 120", "found 70 bytes: it is truncated");
  expect_refused(small_shard() + "x", "120", "expected the file to end at byte 120", "found 121 bytes");
}

TEST(data, shard_tables_are_checked) {
  expect_refused(with_offset(0, 1), "64", "document 0 to start at token 0", "found 1");
  expect_refused(with_offset(1, 0), "72", "document 0 to end in 1..8", "found 0");
  expect_refused(with_offset(2, 3), "80", "document 1 to end in 4..8", "found 3");  // empty
  expect_refused(with_offset(2, 1), "80", "document 1 to end in 4..8", "found 1");  // unordered, overlapping
  expect_refused(with_offset(2, 9), "80", "document 1 to end in 4..8", "found 9");  // past the end
  expect_refused(with_offset(2, static_cast<uint64_t>(-1)), "80", "document 1 to end in", "found 18446744073709551615");
  expect_refused(with_offset(3, 7), "88", "the last document to end at token 8", "found 7");
  std::string flipped = small_shard();
  flipped[72] ^= 4;
  expect_refused(flipped, "64", "the tables' checksum", "found");
}

TEST(data, shard_tokens_are_checked) {
  std::string flipped = small_shard();
  flipped[110] ^= 1;
  expect_refused(flipped, "104", "the checksum of token block 0", "found");

  std::string hostile = small_shard();
  put_field<uint16_t>(hostile, 110, 100);
  put_field(hostile, 96, xxhash64(bytes_of(hostile, 104, 120)));
  seal_tables(hostile, 104);
  expect_refused(hostile, "110", "token 3: expected an id below the vocabulary size 100", "found 100");
}

TEST(data, shard_damage_is_found_in_its_block_only) {
  const TemporaryFolder folder;
  const std::string path = write_counting_split(folder, "train", 1000, {200000})[0];
  std::string bytes = get_file(path);
  const size_t tokens_begin = bytes.size() - 400000;
  bytes[tokens_begin + 3 * kShardBlockBytes + 5] ^= 1;
  put_file(path, bytes);
  const TokenShard shard(path);
  std::vector<int32_t> ids(1000);
  shard.read(0, ids);
  shard.read(199000, ids);
  EXPECT_ERROR(
      UserError, { shard.read(3 * 32768 - 500, ids); }, "byte " + std::to_string(tokens_begin + 3 * kShardBlockBytes), "token block 3");
  EXPECT_ERROR(UserError, { shard.verify(); }, "token block 3");
}

TEST(data, shard_files_that_cannot_be_read) {
  const TemporaryFolder folder;
  EXPECT_ERROR(UserError, { TokenShard(folder / "none.tokens"); }, "none.tokens", "No such file");
  EXPECT_ERROR(UserError, { TokenShard shard(folder.path); }, "expected a regular file");
  EXPECT_ERROR(UserError, { TokenShard(std::string("a\0b", 3)); }, "NUL");
}

TEST(data, shard_ids_are_checked_when_written) {
  const TemporaryFolder folder;
  SplitWriter writer(folder.path, "train", 10);
  const std::vector<uint32_t> good{1, 9}, bad{3, 10};
  writer.append(good);
  EXPECT_ERROR(UserError, { writer.append(bad); }, "train, document 0", "below the vocabulary size 10", "found 10");
  writer.end_document();
  writer.end_document();
  EXPECT_EQ(writer.finish().at(0).num_tokens, int64_t{2});
  EXPECT_ERROR(UserError, { SplitWriter(folder.path, "train", 0); }, "vocabulary size", "found 0");
}

TEST(data, shard_on_a_full_disk_leaves_nothing) {
  const TemporaryFolder folder;
  SplitWriter writer(folder.path, "train", 10);
  const std::vector<uint32_t> ids(100000, 3);
  writer.append(ids);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string problem;
  try {
    writer.finish();
  } catch (const UserError& error) {
    problem = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT(problem.find("train-00000.tokens") != std::string::npos && problem.find("File too large") != std::string::npos);
  EXPECT(std::filesystem::is_empty(folder.path));
}

// Mutations of a valid file, half of them sealed with right checksums so that they reach the checks behind them.
TEST(data, shard_fuzz) {
  const TemporaryFolder folder;
  const std::string valid = get_file(write_counting_split(folder, "train", 300, {3, 1, 400, 70, 2, 900})[0]);
  const size_t tokens_begin = valid.size() - 2 * 1376;
  const std::vector<uint64_t> tempting{
      0, 1, 2, 3, 7, 255, 256, 65535, 65536, 1376, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 62, uint64_t{1} << 32};
  std::mt19937_64 random(7);
  const auto pick = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  const int64_t resident = resident_bytes();
  int refused = 0, accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string bytes = valid;
    for (size_t edits = 1 + pick(3); edits > 0; --edits) {
      // Most edits go to the header and the tables, where the structure is.
      const size_t limit = pick(4) ? tokens_begin : bytes.size();
      switch (pick(5)) {
        case 0:
          bytes[pick(std::min(limit, bytes.size()))] ^= static_cast<char>(1 << pick(8));
          break;
        case 1:
          put_field(bytes, std::min(8 * pick(limit / 8), bytes.size() - 8), tempting[pick(tempting.size())]);
          break;
        case 2:
          put_field(bytes, std::min(8 * pick(limit / 8), bytes.size() - 8), random() % 2000);
          break;
        case 3:
          bytes.resize(72 + pick(bytes.size() - 71));
          break;
        case 4:
          bytes.insert(pick(bytes.size()), std::string(1 + pick(9), static_cast<char>(pick(256))));
          break;
      }
    }
    if (pick(2)) {
      seal_tables(bytes, std::min(tokens_begin, bytes.size()));
      if (pick(2) && bytes.size() > tokens_begin) {
        put_field(bytes, tokens_begin - 8, xxhash64(bytes_of(bytes, tokens_begin, bytes.size())));
        seal_tables(bytes, tokens_begin);
      }
    }
    try {
      const TokenShard shard("fuzzed", std::as_bytes(std::span(bytes)));
      shard.verify();
      std::vector<int32_t> ids(static_cast<size_t>(shard.num_tokens()));
      shard.read(0, ids);
      for (const int32_t id : ids) EXPECT(id >= 0 && id < shard.vocab_size());
      int64_t end = 0;
      for (int64_t d = 0; d < shard.num_documents(); ++d) {
        EXPECT(shard.document_start(d) == end);
        end = shard.document_end(end);
      }
      EXPECT_EQ(end, shard.num_tokens());
      ++accepted;
    } catch (const UserError&) {
      ++refused;
    }
  }
  EXPECT(refused > 20000 && accepted > 50);
#ifdef __SANITIZE_ADDRESS__
  constexpr int64_t kMostBytes = 512 << 20;  // it keeps 256 MiB of freed memory back
#else
  constexpr int64_t kMostBytes = 64 << 20;
#endif
  EXPECT(resident_bytes() - resident < kMostBytes);
}

}  // namespace mw
