// The encodings of GGUF tensors that are read here: how a block of elements is packed (docs/formats/gguf.md), and decoding it in f32
// with the operations and their order of the reference (the package `gguf`), so that results are equal bit by bit.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "checkpoint/gguf.h"

namespace mw {
namespace {

unsigned byte_at(const std::byte* block, int64_t at) { return static_cast<unsigned>(block[at]); }

int signed_at(const std::byte* block, int64_t at) { return static_cast<int8_t>(block[at]); }

float half_at(const std::byte* block, int64_t at) {
  F16 half;
  std::memcpy(&half, block + at, sizeof half);
  return to_float(half);
}

// Blocks of 32: the low halves of 16 bytes are elements 0 to 15, the high halves 16 to 31.
unsigned half_byte(const std::byte* bytes, int i) { return i < 16 ? byte_at(bytes, i) & 15 : byte_at(bytes, i - 16) >> 4; }

void decode_q4_0(const std::byte* block, float* to) {
  const float d = half_at(block, 0);
  for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(static_cast<int>(half_byte(block + 2, i)) - 8);
}

void decode_q4_1(const std::byte* block, float* to) {
  const float d = half_at(block, 0), least = half_at(block, 2);
  for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(half_byte(block + 4, i)) + least;
}

// The fifth bits of 32 elements are one u32, element 0 in the lowest bit.
unsigned five_bits(const std::byte* block, int64_t high, int64_t low, int i) {
  uint32_t bits;
  std::memcpy(&bits, block + high, sizeof bits);
  return half_byte(block + low, i) | (bits >> i & 1) << 4;
}

void decode_q5_0(const std::byte* block, float* to) {
  const float d = half_at(block, 0);
  for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(static_cast<int>(five_bits(block, 2, 6, i)) - 16);
}

void decode_q5_1(const std::byte* block, float* to) {
  const float d = half_at(block, 0), least = half_at(block, 2);
  for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(five_bits(block, 4, 8, i)) + least;
}

void decode_q8_0(const std::byte* block, float* to) {
  const float d = half_at(block, 0);
  for (int i = 0; i < 32; ++i) to[i] = static_cast<float>(signed_at(block, 2 + i)) * d;
}

struct ScaleAndMin {
  unsigned scale, min;
};

// Number `i` of the eight pairs of six-bit numbers that a Q4_K or Q5_K block packs into 12 bytes: the first four lie in the low six bits
// of bytes 0-3 and 4-7; of the others four bits lie in bytes 8-11, and two in the high bits that the first four leave free.
ScaleAndMin scale_and_min(const std::byte* packed, int i) {
  if (i < 4) return {byte_at(packed, i) & 63, byte_at(packed, i + 4) & 63};
  return {(byte_at(packed, i + 4) & 15) | (byte_at(packed, i - 4) >> 6) << 4, byte_at(packed, i + 4) >> 4 | (byte_at(packed, i) >> 6) << 4};
}

// 256 elements in groups of 32; bytes 32 g to 32 g + 31 hold the groups 2 g (low halves) and 2 g + 1 (high halves).
void decode_q4_k(const std::byte* block, float* to) {
  const float d = half_at(block, 0), least = half_at(block, 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin packed = scale_and_min(block + 4, group);
    const float scale = d * static_cast<float>(packed.scale), min = least * static_cast<float>(packed.min);
    const std::byte* bytes = block + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const unsigned q = group % 2 ? byte_at(bytes, i) >> 4 : byte_at(bytes, i) & 15;
      to[group * 32 + i] = scale * static_cast<float>(q) - min;
    }
  }
}

// As Q4_K, with a fifth bit: that of element i of group g is bit g of byte i of 32.
void decode_q5_k(const std::byte* block, float* to) {
  const float d = half_at(block, 0), least = half_at(block, 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin packed = scale_and_min(block + 4, group);
    const float scale = d * static_cast<float>(packed.scale), min = least * static_cast<float>(packed.min);
    const std::byte* bytes = block + 48 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const unsigned low = group % 2 ? byte_at(bytes, i) >> 4 : byte_at(bytes, i) & 15;
      const unsigned q = low | (byte_at(block + 16, i) >> group & 1) << 4;
      to[group * 32 + i] = scale * static_cast<float>(q) - min;
    }
  }
}

// 256 elements as two halves of 128, each of four groups of 32: of group g the low four bits lie in the low (g < 2) or high halves of 32
// bytes, the high two in bits 2 g and 2 g + 1 of 32 other bytes. One signed scale per 16 elements.
void decode_q6_k(const std::byte* block, float* to) {
  const float d = half_at(block, 208);
  for (int half = 0; half < 2; ++half) {
    for (int group = 0; group < 4; ++group) {
      const std::byte* low = block + half * 64 + group % 2 * 32;
      const std::byte* high = block + 128 + half * 32;
      for (int i = 0; i < 32; ++i) {
        const int at = half * 128 + group * 32 + i;
        const unsigned bits = group < 2 ? byte_at(low, i) & 15 : byte_at(low, i) >> 4;
        const int q = static_cast<int>(bits | (byte_at(high, i) >> (2 * group) & 3) << 4) - 32;
        to[at] = d * static_cast<float>(signed_at(block, 192 + at / 16)) * static_cast<float>(q);
      }
    }
  }
}

// One byte of exponent for 32 values of four bits; the table holds twice the values and the power is half of 2^(exponent - 127).
void decode_mxfp4(const std::byte* block, float* to) {
  constexpr std::array<float, 16> kTwice{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const uint32_t exponent = byte_at(block, 0);
  const float d = std::bit_cast<float>(exponent < 2 ? uint32_t{0x00200000} << exponent : (exponent - 1) << 23);
  for (int i = 0; i < 32; ++i) to[i] = d * kTwice[half_byte(block + 1, i)];
}

constexpr std::array kEncodings{
    GgufEncoding{0, "F32", 1, 4, nullptr, DType::kF32},
    GgufEncoding{1, "F16", 1, 2, nullptr, DType::kF16},
    GgufEncoding{2, "Q4_0", 32, 18, decode_q4_0, std::nullopt},
    GgufEncoding{3, "Q4_1", 32, 20, decode_q4_1, std::nullopt},
    GgufEncoding{6, "Q5_0", 32, 22, decode_q5_0, std::nullopt},
    GgufEncoding{7, "Q5_1", 32, 24, decode_q5_1, std::nullopt},
    GgufEncoding{8, "Q8_0", 32, 34, decode_q8_0, std::nullopt},
    GgufEncoding{12, "Q4_K", 256, 144, decode_q4_k, std::nullopt},
    GgufEncoding{13, "Q5_K", 256, 176, decode_q5_k, std::nullopt},
    GgufEncoding{14, "Q6_K", 256, 210, decode_q6_k, std::nullopt},
    GgufEncoding{30, "BF16", 1, 2, nullptr, DType::kBF16},
    GgufEncoding{39, "MXFP4", 32, 17, decode_mxfp4, std::nullopt},
};

struct OtherEncoding {
  uint32_t id;
  std::string_view name;
};
constexpr OtherEncoding kOthers[] = {{9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
                                     {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
                                     {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
                                     {34, "TQ1_0"},   {35, "TQ2_0"}, {40, "NVFP4"},  {41, "Q1_0"}};

}  // namespace

const GgufEncoding* find_gguf_encoding(uint32_t id) {
  const auto found = std::find_if(kEncodings.begin(), kEncodings.end(), [&](const GgufEncoding& encoding) { return encoding.id == id; });
  return found == kEncodings.end() ? nullptr : &*found;
}

std::string gguf_encoding_names() {
  std::string names;
  for (const GgufEncoding& encoding : kEncodings) names += (names.empty() ? "" : ", ") + std::string(encoding.name);
  return names;
}

std::string gguf_encoding_name(uint32_t id) {
  if (const GgufEncoding* encoding = find_gguf_encoding(id)) return std::string(encoding->name);
  for (const OtherEncoding& other : kOthers) {
    if (other.id == id) return std::string(other.name);
  }
  return "number " + std::to_string(id);
}

void decode_gguf(const GgufEncoding& encoding, std::span<const std::byte> bytes, int64_t first, int64_t count, float* to) {
  const int64_t elements = encoding.elements, num_blocks = static_cast<int64_t>(bytes.size()) / encoding.bytes;
  MW_CHECK(first >= 0 && count >= 0 && first + count <= num_blocks * elements, "elements ", first, " to ", first + count, " of ",
           num_blocks * elements);
  if (encoding.dtype) return copy_elements(*encoding.dtype, bytes.data() + first * encoding.bytes, DType::kF32, to, count);
  std::array<float, 256> whole;
  for (int64_t done = 0; done < count;) {
    const int64_t block = (first + done) / elements, skipped = (first + done) % elements;
    const std::byte* from = bytes.data() + block * encoding.bytes;
    const int64_t part = std::min(count - done, elements - skipped);
    if (part == elements) {
      encoding.decode(from, to + done);
    } else {
      encoding.decode(from, whole.data());
      std::copy_n(whole.data() + skipped, part, to + done);
    }
    done += part;
  }
}

}  // namespace mw
