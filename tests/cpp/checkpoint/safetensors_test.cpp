#include "checkpoint/safetensors.h"

#include <sys/resource.h>

#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "checkpoint/fixtures.h"
#include "checkpoint/safetensors_writer.h"
#include "runner.h"

namespace mw {
namespace {

void expect_refused(const std::string& bytes, const std::string& part) {
  const TemporaryFolder folder;
  put_file(folder / "t.safetensors", bytes);
  EXPECT_ERROR(UserError, { SafetensorsFile::open(folder / "t.safetensors"); }, "t.safetensors", part);
}

size_t accepted_tensors(const std::string& bytes) {
  const TemporaryFolder folder;
  put_file(folder / "t.safetensors", bytes);
  return SafetensorsFile::open(folder / "t.safetensors").tensors().size();
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets, const std::string& name = "a") {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{" + entry(dtype, shape, offsets) + "}";
}

int64_t resident_bytes() {
  long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  const int fields = std::fscanf(file, "%ld %ld", &pages, &resident);
  std::fclose(file);
  return fields == 2 ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

TEST(checkpoint, safetensors_lengths_are_checked) {
  expect_refused("", "this file has 0 bytes");
  expect_refused("1234567", "this file has 7 bytes");
  expect_refused(with_length("{}", "", 3), "claims 3 bytes, but only 2 follow");
  expect_refused(with_length("{}", "", 100'000'001), "claims 100000001 bytes; at most");
  expect_refused(with_length("{}", "", uint64_t{1} << 63), "at most");
  expect_refused(with_length("{}", "", ~uint64_t{0}), "at most");
  expect_refused(with_length("", ""), "must begin with '{'");
  EXPECT_EQ(accepted_tensors(with_length("{}")), size_t{0});
  EXPECT_EQ(accepted_tensors(with_length("{}  \n")), size_t{0});
}

TEST(checkpoint, safetensors_json_is_checked) {
  expect_refused(with_length(" {}"), "must begin with '{'");
  expect_refused(with_length("\xef\xbb\xbf{}"), "must begin with '{'");
  expect_refused(with_length("[]"), "must begin with '{'");
  expect_refused(with_length("{} {}"), "line 1, column 4");
  expect_refused(with_length("{\"\xff\":1}"), "UTF-8");
  expect_refused(with_length("{" + entry("F32", "[1]", "[0,4]") + "," + entry("F32", "[1]", "[0,4]") + "}", "1234"),
                 "name 'a' occurs twice");
  expect_refused(with_length(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"),
                 "key 'dtype' of tensor 'a' occurs twice");
  expect_refused(with_length(R"({"__metadata__":{"k":"1","k":"2"}})"), "metadata key 'k' occurs twice");
  expect_refused(with_length(R"({"__metadata__":{"k":1}})"), "expected a string for key 'k', found a number");
  expect_refused(with_length(R"({"__metadata__":[]})"), "found an array");
  expect_refused(with_length(R"({"a":null})"), "expected an object for key 'a', found null");
  expect_refused(with_length(R"({"a":["F32",[1],[0,4]]})", "1234"), "found an array");
  expect_refused(with_length(R"({"a":{"dtype":"F32","shape":[1]}})"), "lacks the key 'data_offsets'");
  expect_refused(with_length(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})"), "expected a string for key 'dtype'");
  expect_refused(with_length(R"({"a":{"dtype":"F32","shape":{},"data_offsets":[0,4]}})"),
                 "expected an array of whole numbers for key 'shape'");
  expect_refused(with_length("{\"a\":" + std::string(200000, '[')), "found an array");
  expect_refused(with_length(R"({"a":{"x":)" + std::string(200000, '[')), "nested deeper than 64");
  EXPECT_EQ(accepted_tensors(with_length(R"({"__metadata__":null})")), size_t{0});
  EXPECT_EQ(accepted_tensors(with_length(
                R"({"a":{"x":[{"dtype":[]},-1.5,null,[[]]],"dtype":"F32","shape":[1],"y":true,"data_offsets":[0,4]}})", "1234")),
            size_t{1});
  EXPECT_EQ(
      accepted_tensors(with_length("{" + entry("U8", "[1]", "[0,1]", "") + "," + entry("U8", "[1]", "[1,2]", "../x\\u0000y") + "}", "12")),
      size_t{2});
}

TEST(checkpoint, safetensors_sizes_are_checked) {
  expect_refused(with_length(one("F32", "[1]", "[0,4]"), "123"), "need 4 bytes, the file holds 3 (is it truncated?)");
  expect_refused(with_length(one("F32", "[1]", "[0,4]"), "12345"), "the file holds 5 (is something appended?)");
  expect_refused(with_length(one("F32", "[2]", "[0,4]"), "1234"), "needs 8 bytes, data_offsets span 4");
  expect_refused(with_length(one("F32", "[-1]", "[0,4]"), "1234"), "found a negative number");
  expect_refused(with_length(one("F32", "[1.0]", "[0,4]"), "1234"), "fraction or exponent");
  expect_refused(with_length(one("F32", "[1e0]", "[0,4]"), "1234"), "fraction or exponent");
  expect_refused(with_length(one("F32", "[true]", "[0,4]"), "1234"), "found a boolean");
  expect_refused(with_length(one("F32", "[\"1\"]", "[0,4]"), "1234"), "found a string");
  expect_refused(with_length(one("F32", "[[1]]", "[0,4]"), "1234"), "found an array");
  expect_refused(with_length(one("F32", "[1]", "[-4,0]"), "1234"), "found a negative number");
  expect_refused(with_length(one("F32", "[1]", "[0]"), "1234"), "needs two numbers");
  expect_refused(with_length(one("F32", "[1]", "[0,4,4]"), "1234"), "needs two numbers");
  expect_refused(with_length(one("F32", "[1]", "[4,0]"), "1234"), "run backwards");
  expect_refused(with_length(one("F32", "[1]", "[4,8]"), "12345678"), "leave a hole");
  expect_refused(with_length(one("F32", "[1]", "[0,18446744073709551615]"), "1234"), "too large");
  expect_refused(with_length(one("F32", "[1]", "[0,18446744073709551620]"), "1234"), "fraction or exponent");
  expect_refused(with_length(one("F32", "[4611686018427387905]", "[0,4]"), "1234"), "more bits than 2^64");
  expect_refused(with_length(one("F32", "[4294967296,4294967296,0]", "[0,0]")), "more elements than 2^64");
  expect_refused(with_length(one("F4", "[1]", "[0,1]"), "1"), "do not fill whole bytes");
  expect_refused(with_length(one("f32", "[1]", "[0,4]"), "1234"), "unknown dtype 'f32'");
  std::string dims = "1";
  for (int i = 0; i < 64; ++i) dims += ",1";
  expect_refused(with_length(one("F32", "[" + dims + "]", "[0,4]"), "1234"), "more than 64 dims");
  expect_refused(with_length("{" + entry("U8", "[4]", "[0,4]") + "," + entry("U8", "[4]", "[2,6]", "b") + "}", "123456"),
                 "overlap another tensor");
  expect_refused(with_length("{" + entry("U8", "[2]", "[0,2]") + "," + entry("U8", "[2]", "[4,6]", "b") + "}", "123456"), "leave a hole");
  EXPECT_EQ(accepted_tensors(with_length("{" + entry("F32", "[0]", "[0,0]") + "," + entry("F32", "[]", "[0,4]", "b") + "," +
                                             entry("I64", "[0,7]", "[4,4]", "c") + "}",
                                         "1234")),
            size_t{3});
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "U8", "I8", "BOOL"})
    EXPECT_EQ(accepted_tensors(with_length(one(dtype, "[4]", "[0,4]"), "1234")), size_t{1});
  EXPECT_EQ(accepted_tensors(with_length(one("F4", "[2,4]", "[0,4]"), "1234")), size_t{1});
}

TEST(checkpoint, safetensors_only_regular_files_open) {
  const TemporaryFolder folder;
  EXPECT_ERROR(UserError, { SafetensorsFile::open(folder / "none"); }, "cannot open", "No such file");
  EXPECT_ERROR(UserError, { SafetensorsFile::open(folder.path); }, "expected a regular file");
  EXPECT_ERROR(UserError, { SafetensorsFile::open("/dev/zero"); }, "expected a regular file");
}

TEST(checkpoint, safetensors_round_trip_and_layout) {
  const TemporaryFolder folder;
  const std::string path = folder / "t.safetensors";
  SafetensorsWriter writer(path, {{"b", DType::kBF16, {3}},
                                  {"wei\"ght\n", DType::kF32, {2, 2}},
                                  {"i", DType::kI32, {1}},
                                  {"u", DType::kU8, {}},
                                  {"none", DType::kF32, {0, 4}}});
  EXPECT_EQ(writer.tensors()[0].name, "wei\"ght\n");  // larger elements first: every tensor is aligned
  std::string data;
  for (int i = 0; i < 27; ++i) data += static_cast<char>(i * 11);
  for (char byte : data) writer.write(std::as_bytes(std::span(&byte, 1)));
  const FileDigest digest = writer.finish();
  EXPECT(digest == digest_of_file(path));

  const std::string bytes = get_file(path);
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), 8);
  EXPECT_EQ(header_bytes % 8, uint64_t{0});
  EXPECT_EQ(bytes.substr(8 + header_bytes), data);
  EXPECT_EQ(bytes.substr(8, 35), R"({"__metadata__":{"format":"pt"},"we)");
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.tensors().size(), size_t{5});
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.find("b")->dtype, "BF16");
  EXPECT_EQ(file.bytes(*file.find("b")).size(), size_t{6});
  EXPECT_EQ(static_cast<char>(file.bytes(*file.find("u"))[0]), data[26]);
  EXPECT(file.find("c") == nullptr);
}

TEST(checkpoint, safetensors_writer_refuses_bad_names_and_counts) {
  const TemporaryFolder folder;
  EXPECT_ERROR(UserError, { SafetensorsWriter(folder / "t", {{"a", DType::kF32, {}}, {"a", DType::kF32, {}}}); }, "'a' occurs twice");
  EXPECT_ERROR(UserError, { SafetensorsWriter(folder / "t", {{"\xff", DType::kF32, {}}}); }, "'\\xff' is not valid UTF-8");
  EXPECT_ERROR(UserError, { SafetensorsWriter(folder / "t", {{"__metadata__", DType::kF32, {}}}); }, "__metadata__");
  SafetensorsWriter writer(folder / "t", {{"a", DType::kF32, {}}});
  EXPECT_ERROR(InternalError, { writer.finish(); }, "4 bytes of the tensors were not written");
}

TEST(checkpoint, slices_read_like_a_naive_copy) {
  const TemporaryFolder folder;
  const Shape shape{3, 4, 5, 2};
  std::vector<float> values(120);
  std::iota(values.begin(), values.end(), 0.0f);
  SafetensorsWriter writer(folder / "t", {{"x", DType::kF32, shape}});
  writer.write(std::as_bytes(std::span(values)));
  writer.finish();
  const SafetensorsFile file = SafetensorsFile::open(folder / "t");
  const StoredTensor& x = *file.find("x");
  int num_slices = 0;
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    Slice slice;
    for (const int64_t size : shape) {
      slice.begin.push_back(static_cast<int64_t>(random() % 4) * size / 4);
      slice.end.push_back(slice.begin.back() + static_cast<int64_t>(random()) % (size + 1 - slice.begin.back()));
    }
    std::vector<float> read(static_cast<size_t>(num_elements(slice)), -1.0f), expected;
    for (int64_t i = slice.begin[0]; i < slice.end[0]; ++i)
      for (int64_t j = slice.begin[1]; j < slice.end[1]; ++j)
        for (int64_t k = slice.begin[2]; k < slice.end[2]; ++k)
          for (int64_t l = slice.begin[3]; l < slice.end[3]; ++l) expected.push_back(static_cast<float>(((i * 4 + j) * 5 + k) * 2 + l));
    file.read(x, slice, DType::kF32, read.data());
    EXPECT(read == expected);
    num_slices += !read.empty();
  }
  EXPECT(num_slices > 200);
  float value = 0;
  EXPECT_ERROR(
      UserError, { file.read(x, {{0, 0, 0, 0}, {3, 4, 5, 3}}, DType::kF32, &value); }, "slice [0:3, 0:4, 0:5, 0:3]",
      "'x' of shape [3, 4, 5, 2]");
  EXPECT_ERROR(UserError, { file.read(x, {{0}, {1}}, DType::kF32, &value); }, "rank 1");
  EXPECT_ERROR(UserError, { file.read(x, {{2, 0, 0, 0}, {1, 0, 0, 0}}, DType::kF32, &value); }, "not inside");
  EXPECT_ERROR(UserError, { file.read(x, whole(shape), DType::kI32, &value); }, "stored as F32 and cannot be read as i32");
}

TEST(checkpoint, reading_converts_between_float_types) {
  const TemporaryFolder folder;
  // Data at an odd address: files of other writers need not be aligned.
  const std::string header = "{" + entry("U8", "[1]", "[0,1]", "pad") + "," + entry("F16", "[3]", "[1,7]", "h") + "," +
                             entry("F32", "[2]", "[7,15]", "f") + "," + entry("F8_E4M3", "[1]", "[15,16]", "q") + "} ";
  std::string data = "p";
  for (const float x : {1.5f, -0.25f, 6.103515625e-05f / 2}) {
    const F16 half = to_f16(x);
    data.append(reinterpret_cast<const char*>(&half), 2);
  }
  for (const float x : {1.00390625f, 3.0e38f}) data.append(reinterpret_cast<const char*>(&x), 4);
  put_file(folder / "t", with_length(header, data + "q"));
  const SafetensorsFile file = SafetensorsFile::open(folder / "t");
  std::vector<float> wide(3);
  file.read(*file.find("h"), whole({3}), DType::kF32, wide.data());
  EXPECT(wide == (std::vector<float>{1.5f, -0.25f, 6.103515625e-05f / 2}));
  std::vector<BF16> narrow(2);
  file.read(*file.find("f"), whole({2}), DType::kBF16, narrow.data());
  EXPECT_EQ(narrow[0].bits, to_bf16(1.00390625f).bits);
  EXPECT_EQ(narrow[1].bits, to_bf16(3.0e38f).bits);
  EXPECT_ERROR(UserError, { file.read(*file.find("q"), whole({1}), DType::kF32, wide.data()); }, "stored as F8_E4M3");
}

TEST(checkpoint, reading_keeps_resident_memory_near_the_result) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const TemporaryFolder folder;
  constexpr int64_t kRows = 4096, kColumns = 4096;  // 64 MiB of f32
  {
    SafetensorsWriter writer(folder / "t", {{"x", DType::kF32, {kRows, kColumns}}});
    std::vector<float> row(kColumns);
    for (int64_t i = 0; i < kRows; ++i) {
      std::fill(row.begin(), row.end(), static_cast<float>(i));
      writer.write(std::as_bytes(std::span(row)));
    }
    writer.finish();
  }
  const SafetensorsFile file = SafetensorsFile::open(folder / "t");
  const int64_t before = resident_bytes();
  std::vector<BF16> columns(static_cast<size_t>(kRows * 16));
  file.read(*file.find("x"), {{0, 32}, {kRows, 48}}, DType::kBF16, columns.data());  // touches every page
  EXPECT(to_float(columns[16 * 100]) == 100.0f);
  std::vector<BF16> rows(static_cast<size_t>(kColumns * 1024));
  file.read(*file.find("x"), {{0, 0}, {1024, kColumns}}, DType::kBF16, rows.data());
  const int64_t grown = resident_bytes() - before, results = static_cast<int64_t>(2 * (columns.size() + rows.size()));
  if (grown > results + (4 << 20))
    throw std::runtime_error("resident memory grew by " + std::to_string(grown) + " bytes for results of " + std::to_string(results));
#endif
}

}  // namespace mw
