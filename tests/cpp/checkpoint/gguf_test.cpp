#include "checkpoint/gguf.h"

#include <cstring>

#include "base/error.h"
#include "checkpoint/fixtures.h"
#include "checkpoint/gguf_files.h"
#include "fuzz/gguf_seeds.h"
#include "runner.h"

namespace mw {
namespace {

template <typename T>
std::string raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string text(const std::string& value) { return raw(uint64_t{value.size()}) + value; }

std::string start(uint64_t num_tensors, uint64_t num_keys, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(num_tensors) + raw(num_keys);
}

std::string key(const std::string& name, uint32_t type, const std::string& value) { return text(name) + raw(type) + value; }

std::string record(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string bytes = text(name) + raw(static_cast<uint32_t>(dims.size()));
  for (const uint64_t size : dims) bytes += raw(size);
  return bytes + raw(type) + raw(offset);
}

std::string padded(std::string bytes, size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  return bytes;
}

GgufHeader parse(const std::string& bytes) { return parse_gguf(std::as_bytes(std::span(bytes)), "m.gguf"); }

void expect_refused(const std::string& bytes, const std::string& part) {
  EXPECT_ERROR(UserError, { parse(bytes); }, "m.gguf", part);
}

}  // namespace

TEST(checkpoint, gguf_starts_are_checked) {
  expect_refused("", "begins with the letters GGUF");
  expect_refused("GGU", "begins with the letters GGUF");
  expect_refused("ggml" + std::string(100, '\0'), "begins with the letters GGUF");
  expect_refused("GGUF", "the version needs 4 bytes at 4, but only 0 are left");
  expect_refused(start(0, 0, 1), "version 1, which no tool has written since 2023");
  expect_refused(start(0, 0, 4), "version 4; versions 2 and 3 are read");
  expect_refused(start(0, 0, 0x03000000), "big-endian");
  expect_refused(start(0, 0).substr(0, 20), "the number of keys needs 8 bytes");
  expect_refused(start(uint64_t{1} << 40, 0), "claims 1099511627776 tensors; at most 1048576");
  expect_refused(start(0, ~uint64_t{0}), "metadata keys; at most 65536");
  EXPECT_EQ(parse(start(0, 0)).tensors.size(), size_t{0});
  EXPECT_EQ(parse(start(0, 0, 2)).version, 2u);
}

TEST(checkpoint, gguf_metadata_is_checked) {
  expect_refused(start(0, 1), "the length of a metadata key needs 8 bytes");
  expect_refused(start(0, 1) + raw(uint64_t{70000}), "a metadata key claims 70000 bytes; at most 65535");
  expect_refused(start(0, 1) + raw(uint64_t{9}) + "abc", "a metadata key needs 9 bytes at 32, but only 3 are left");
  expect_refused(start(0, 1) + text("\xff"), "is not valid UTF-8: '\\xff'");
  expect_refused(start(0, 1) + text(""), "a metadata key is empty");
  expect_refused(start(0, 1) + text("a"), "the type of key 'a' needs 4 bytes");
  expect_refused(start(0, 1) + key("a", 13, ""), "key 'a' has the value type 13; there are 0 to 12");
  expect_refused(start(0, 1) + key("a", 4, "123"), "key 'a' needs 4 bytes");
  expect_refused(start(0, 1) + key("a", 7, "\x02"), "key 'a' is a boolean that is neither 0 nor 1");
  expect_refused(start(0, 2) + key("a", 7, "\x01") + key("a", 7, "\x01"), "key 'a' occurs twice");
  expect_refused(start(0, 1) + key("a", 8, raw(~uint64_t{0})), "at most 268435456 are allowed");
  expect_refused(start(0, 1) + key("a", 8, raw(uint64_t{100}) + "x"), "key 'a' needs 100 bytes");
  expect_refused(start(0, 1) + key("a", 9, raw(uint32_t{9}) + raw(uint64_t{1})), "key 'a' is an array of arrays");
  expect_refused(start(0, 1) + key("a", 9, raw(uint32_t{5}) + raw(uint64_t{1} << 62)),
                 "claims 4611686018427387904 elements, but only 0 bytes");
  expect_refused(start(0, 1) + key("a", 9, raw(uint32_t{8}) + raw(uint64_t{3}) + text("") + text("")),
                 "claims 3 elements, but only 16 bytes");
  expect_refused(start(0, 1) + key("a", 9, raw(uint32_t{8}) + raw(uint64_t{1}) + raw(uint64_t{1})), "an element of key 'a' needs 1 bytes");
  expect_refused(start(0, 1) + key("a", 9, raw(uint32_t{7}) + raw(uint64_t{2}) + "\x01\x05"), "holds a boolean that is neither");
  const std::string bytes = start(0, 3) + key("n", 10, raw(~uint64_t{0})) + key("f", 6, raw(0.1f)) + key("s", 8, text("x"));
  const GgufHeader header = parse(bytes);
  EXPECT_EQ(header.number("f"), 0.1);
  EXPECT_EQ(header.text("s"), "x");
  EXPECT_ERROR(UserError, { header.integer("n"); }, "key 'n': expected a whole number, found 18446744073709551615");
  EXPECT_ERROR(UserError, { header.integer("f"); }, "key 'f': expected a whole number, found 0.1");
  EXPECT_ERROR(UserError, { header.text("f"); }, "key 'f': expected text, found 0.1");
  EXPECT_ERROR(UserError, { header.text("g"); }, "key 'g': expected text, found nothing");
  EXPECT_ERROR(UserError, { header.flag("s", false); }, "expected true or false, found 'x'");
}

TEST(checkpoint, gguf_tensors_are_checked) {
  const auto one = [](const std::string& one_record, size_t data_bytes) {
    return padded(start(1, 0) + one_record) + std::string(data_bytes, 'd');
  };
  expect_refused(start(1, 0), "a tensor's name needs 8 bytes");
  expect_refused(one(text(std::string(300, 'x')), 0), "a tensor's name claims 300 bytes; at most 256");
  expect_refused(start(1, 0) + text("a") + raw(uint32_t{5}), "tensor 'a' claims 5 dims; at most 4");
  expect_refused(one(record("a", {0}, 0, 0), 0), "tensor 'a' has a dim of 0");
  expect_refused(one(record("a", {uint64_t{1} << 63}, 0, 0), 0), "tensor 'a' has a dim of 9223372036854775808");
  expect_refused(one(record("a", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0), 0), "too large");
  expect_refused(one(record("a", {uint64_t{1} << 61}, 30, 0), 0), "too large");
  expect_refused(one(record("a", {8}, 23, 0), 0), "tensor 'a' is stored as IQ4_XS, which is not read here; there are F32, F16, Q4_0");
  expect_refused(one(record("a", {8}, 99, 0), 0), "stored as number 99");
  expect_refused(one(record("a", {33}, 8, 0), 64), "has rows of 33 elements, which do not divide into the blocks of 32 of Q8_0");
  expect_refused(one(record("a", {2}, 0, 32), 64), "tensor 'a' begins at 32; expected 0");
  expect_refused(one(record("a", {9}, 0, 0), 32), "tensor 'a' needs 36 bytes at 0 of the data, which has 32 (is the file truncated?)");
  expect_refused(one(record("a", {8}, 0, 0), 33), "1 bytes follow the last tensor");
  const std::string two = record("b", {2}, 0, 32) + record("a", {3, 1}, 1, 0);
  const std::string bytes = padded(start(2, 0) + two) + std::string(64, 'd');
  const GgufHeader header = parse(bytes);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT(header.tensors[0].shape == (Shape{1, 3}));
  EXPECT_EQ(header.tensors[1].begin, header.data_begin + 32);
  EXPECT_EQ(parse(bytes.substr(0, bytes.size() - 24)).tensors[1].num_bytes(), 8);  // the last padding may be missing
  expect_refused(padded(start(2, 0) + record("a", {2}, 0, 0) + record("a", {2}, 0, 32)) + std::string(64, 'd'),
                 "tensor name 'a' occurs twice");
  expect_refused(padded(start(2, 0) + record("a", {2}, 0, 0) + record("b", {2}, 0, 0)) + std::string(64, 'd'), "begins at 0; expected 32");
}

TEST(checkpoint, gguf_alignment_is_checked) {
  const auto aligned = [](uint32_t alignment, uint32_t type = 4) {
    const std::string head = start(1, 1) + key("general.alignment", type, raw(alignment)) + record("a", {2}, 0, 0);
    return padded(head, alignment) + std::string(8, 'd');
  };
  EXPECT_EQ(parse(aligned(8)).alignment, 8);
  EXPECT_EQ(parse(aligned(64)).tensors[0].begin % 64, 0);
  for (const uint32_t bad : {3u, 24u, 1u << 21}) expect_refused(aligned(bad), "general.alignment: expected a power of two");
  expect_refused(aligned(32, 5), "as u32");
  expect_refused(start(0, 1) + key("general.alignment", 4, raw(0u)), "general.alignment: expected a power of two");
}

TEST(checkpoint, gguf_seeds_of_the_fuzzer_are_valid) {
  for (const GgufSeed& seed : gguf_seeds()) {
    const std::string bytes = seed.bytes();
    EXPECT_EQ(parse(bytes).tensors.size(), seed.tensors.size());
  }
}

TEST(checkpoint, gguf_decoding_stays_inside_its_blocks) {
  const GgufEncoding& encoding = *find_gguf_encoding(8);
  std::string block(34, '\1');
  const uint16_t one = 0x3c00;  // 1.0 in half precision
  std::memcpy(block.data(), &one, 2);
  float values[32] = {};
  decode_gguf(encoding, std::as_bytes(std::span(block)), 30, 2, values);
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[2], 0.0f);
  EXPECT_ERROR(InternalError, { decode_gguf(encoding, std::as_bytes(std::span(block)), 30, 3, values); }, "elements 30 to 33 of 32");
}

}  // namespace mw
