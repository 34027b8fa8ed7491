#include "data/data_folder.h"

#include "base/error.h"
#include "data/shards.h"
#include "runner.h"

namespace mw {
namespace {

std::string valid_text(const TemporaryFolder& folder) {
  SplitWriter writer(folder.path, "train", 100);
  const std::vector<uint32_t> ids{1, 2, 3};
  writer.append(ids);
  const ShardSummary shard = writer.finish().at(0);
  return R"({"format": "meshwright-tokens", "version": 1, "vocab_size": 100, "eos_id": 0, "tokenizer": null, "splits": {"train": {)"
         R"("num_tokens": 3, "num_documents": 1, "text_bytes": 9, "shards": [{"file": "train-00000.tokens", "num_tokens": 3, "num_documents": 1, )"
         R"("checksum": ")" +
         hex16(shard.checksum) + R"("}]}, "validation": {"num_tokens": 0, "num_documents": 0, "text_bytes": 0, "shards": []}}})";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("not in the text: " + from);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST(data, folder_opens) {
  const TemporaryFolder folder;
  put_file(folder / "dataset.json", valid_text(folder));
  const DataFolder data = DataFolder::open(folder.path);
  EXPECT_EQ(data.vocab_size, int64_t{100});
  EXPECT_EQ(data.eos_id, int64_t{0});
  EXPECT_EQ(data.split("train").text_bytes, int64_t{9});
  EXPECT_EQ(data.open_split("train").num_tokens(), int64_t{3});
  EXPECT_ERROR(UserError, { data.open_split("trian"); }, "no split 'trian' (did you mean 'train'?); it has 'train'");
  EXPECT_ERROR(UserError, { data.open_split("validation"); }, "no split 'validation' with any token in it; it has 'train'");
}

TEST(data, folder_errors) {
  const TemporaryFolder folder;
  const std::string text = valid_text(folder);
  EXPECT_ERROR(UserError, { DataFolder::open(folder.path); }, "expected a data folder with dataset.json", "a folder without it");
  EXPECT_ERROR(UserError, { DataFolder::open(folder / "none"); }, "found nothing there");
  EXPECT_ERROR(UserError, { DataFolder::open(folder / "train-00000.tokens"); }, "found a file");
  const auto expect_refused = [&](const std::string& from, const std::string& to, const std::string& part) {
    EXPECT_ERROR(UserError, { parse_data_folder(replaced(text, from, to), "d/dataset.json"); }, "d/dataset.json", part);
  };
  expect_refused("meshwright-tokens", "other", "expected 'meshwright-tokens', found 'other'");
  expect_refused(R"("version": 1)", R"("version": 2)", "'version': expected an integer of at least 1 and at most 1, found 2");
  expect_refused("100", "0", "'vocab_size'");
  expect_refused("100", "1e2", "'vocab_size'");
  expect_refused(R"("eos_id": 0)", R"("eos_id": 100)", "at most 99, found 100");
  expect_refused(R"("eos_id": 0, )", "", "expected the key 'eos_id', found none");
  expect_refused("train-00000.tokens", "../train-00000.tokens", "the name of a file in this folder, found '../train-00000.tokens'");
  expect_refused(R"("num_tokens": 3)", R"("num_tokens": -3)", "split 'train', 'num_tokens': expected an integer of at least 0, found -3");
  expect_refused(R"("num_tokens": 3)", R"("num_tokens": 18446744073709551615)", "found 18446744073709551615");
  expect_refused(R"("num_tokens": 3)", R"("num_tokens": 4)", "shards of together 4 tokens and 1 documents, found 3 and 1");
  expect_refused(R"("num_tokens": 3)", R"("num_tokens": 2)", "split 'train', shard 0, 'num_tokens'");
  expect_refused(R"("shards": [)", R"("shards": {)", "line 1");
  expect_refused(R"("checksum": ")", R"("checksum": "Z)", "16 lower-case hexadecimal digits");
}

TEST(data, folder_with_another_shard) {
  const TemporaryFolder folder;
  put_file(folder / "dataset.json", valid_text(folder));
  write_counting_split(folder, "train", 100, {4});
  EXPECT_ERROR(
      UserError, { DataFolder::open(folder.path).open_split("train"); }, "train-00000.tokens", "that dataset.json states (3 tokens",
      "found 4 tokens");
  write_counting_split(folder, "train", 101, {3});
  EXPECT_ERROR(UserError, { DataFolder::open(folder.path).open_split("train"); }, "byte 16: expected the vocabulary size 100", "found 101");
}

}  // namespace mw
