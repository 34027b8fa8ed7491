// What torch and transformers say about the values is in tests/python/test_quantized_weights.py; here: memory, threads, damaged folders.
#include "checkpoint/dequantized.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "checkpoint/fixtures.h"
#include "checkpoint/safetensors_writer.h"
#include "fuzz/mutator.h"
#include "runner.h"

namespace mw {
namespace {

int64_t resident_file_bytes() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  long long kib = 0;
  while (std::fgets(line, sizeof line, file)) {
    if (std::sscanf(line, "RssFile: %lld", &kib) == 1) break;
  }
  std::fclose(file);
  return kib * 1024;
}

// A file of one MXFP4 tensor of this many experts, 1.0 everywhere.
std::string mxfp4_file(int64_t experts, int64_t out, int64_t groups) {
  const int64_t block_bytes = experts * out * groups * 16, scale_bytes = experts * out * groups;
  const std::string header =
      nlohmann::json{
          {"a_blocks", {{"dtype", "U8"}, {"shape", {experts, out, groups, 16}}, {"data_offsets", {0, block_bytes}}}},
          {"a_scales", {{"dtype", "U8"}, {"shape", {experts, out, groups}}, {"data_offsets", {block_bytes, block_bytes + scale_bytes}}}}}
          .dump();
  return with_length(header, std::string(static_cast<size_t>(block_bytes), '\x22') + std::string(static_cast<size_t>(scale_bytes), '\x7f'));
}

}  // namespace

TEST(checkpoint, mxfp4_reading_keeps_little_of_the_file) {
  const TemporaryFolder folder;
  put_file(folder / "model.safetensors", mxfp4_file(16, 1024, 128));  // 35 MB
  const DequantizedFolder weights(TensorFolder::open(folder.path));
  EXPECT(weights.info("a").shape == (Shape{16, 4096, 1024}));
  std::vector<uint16_t> expert(4096 * 1024);
  const int64_t before = resident_file_bytes();
  int64_t most = 0;
  for (int64_t e = 0; e < 16; ++e) {
    weights.read("a", {{e, 0, 0}, {e + 1, 4096, 1024}}, DType::kBF16, expert.data());
    EXPECT_EQ(expert[0], 0x3f80);
    EXPECT_EQ(expert.back(), 0x3f80);
    most = std::max(most, resident_file_bytes() - before);
  }
  EXPECT(most < (4 << 20));  // what is touched is given back
}

TEST(checkpoint, dequantized_tensors_are_read_by_many_threads) {
  const TemporaryFolder folder;
  put_file(folder / "model.safetensors", mxfp4_file(4, 64, 4));
  const DequantizedFolder weights(TensorFolder::open(folder.path));
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<float> values(128 * 64);
      for (int round = 0; round < 50; ++round) {
        weights.read("a", {{t, 0, 0}, {t + 1, 128, 64}}, DType::kF32, values.data());
        for (const float value : values) wrong += value != 1.0f;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(checkpoint, stored_parts_can_be_written_again_as_they_are) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},"a.weight_scale_inv":{"dtype":"F32","shape":[1,1],"data_offsets":[6,10]}})";
  put_file(folder / "model.safetensors", with_length(header, "abcdefghij"));
  const DequantizedFolder weights(TensorFolder::open(folder.path));
  std::vector<TensorSpec> specs;
  for (const std::string& part : weights.stored_parts("a.weight")) {
    const StoredTensor& stored = weights.stored_tensor(part);
    specs.push_back(
        {.name = part, .dtype = dtype_of_stored(stored.dtype).value_or(DType::kU8), .shape = stored.shape, .stored = stored.dtype});
  }
  SafetensorsWriter writer(folder / "again.safetensors", specs);
  for (const TensorSpec& tensor : writer.tensors()) writer.write(weights.stored_bytes(tensor.name));
  writer.finish();
  const SafetensorsFile again = SafetensorsFile::open(folder / "again.safetensors");
  EXPECT_EQ(again.find("a.weight")->dtype, "F8_E4M3");
  EXPECT_EQ(again.find("a.weight_scale_inv")->dtype, "F32");
  const auto text = [&](const char* name) {
    const auto bytes = again.bytes(*again.find(name));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  EXPECT_EQ(text("a.weight") + text("a.weight_scale_inv"), "abcdefghij");
}

TEST(checkpoint, quantized_folders_of_any_shape_are_read_or_refused) {
  const int memory_file = ::memfd_create("folder", MFD_CLOEXEC);  // a regular file without a disk behind it
  const std::string path = "/proc/self/fd/" + std::to_string(memory_file);
  Mutator mutator(1);
  const std::vector<std::string> names{"a.weight", "a.weight_scale_inv", "b_blocks", "b_scales", "b", "c.weight_scale_inv"};
  const std::vector<std::string> dtypes{"F8_E4M3", "F8_E4M3", "U8", "U8", "F32", "F32", "BF16", "I8"};
  int num_read = 0, num_refused = 0;
  for (int round = 0; round < 4000; ++round) {
    nlohmann::json header;
    int64_t end = 0;
    for (const std::string& name : names) {
      if (mutator.below(3) == 0) continue;
      std::string dtype = mutator.one_of(dtypes);
      std::vector<int64_t> shape;
      int64_t count = 1;
      for (size_t rank = mutator.below(5); rank > 0; --rank) shape.push_back(static_cast<int64_t>(mutator.below(4)));
      if (mutator.below(4)) {  // what belongs together, most of the time
        if (name == "a.weight") dtype = "F8_E4M3", shape = {static_cast<int64_t>(mutator.below(9)), 5};
        if (name == "a.weight_scale_inv") dtype = "F32", shape = {static_cast<int64_t>(mutator.below(3)), 2};
        if (name == "b_blocks") dtype = "U8", shape = {1, 3, static_cast<int64_t>(mutator.below(3)), 16};
        if (name == "b_scales") dtype = "U8", shape = {1, 3, static_cast<int64_t>(mutator.below(3))};
      }
      for (const int64_t size : shape) count *= size;
      const int64_t bytes = count * (dtype == "F32" ? 4 : dtype == "BF16" ? 2 : 1);
      header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
      end += bytes;
    }
    if (header.is_null()) continue;
    const std::string file = with_length(header.dump(), std::string(static_cast<size_t>(end), 'd'));
    EXPECT(::ftruncate(memory_file, 0) == 0);
    EXPECT_EQ(::pwrite(memory_file, file.data(), file.size(), 0), static_cast<ssize_t>(file.size()));
    try {
      const DequantizedFolder weights(TensorFolder::open_file(path), {.block = {4, 3}});
      for (const std::string& name : weights.names()) {
        const TensorInfo info = weights.info(name);
        for (const std::string& part : weights.stored_parts(name)) weights.stored_bytes(part);
        if (!info.reads_as) continue;
        std::vector<double> values(static_cast<size_t>(num_elements(info.shape)));
        weights.read(name, is_float(*info.reads_as) ? DType::kF64 : *info.reads_as, values.data());
      }
      ++num_read;
    } catch (const UserError&) {
      ++num_refused;
    }
  }
  ::close(memory_file);
  EXPECT(num_read > 100);
  EXPECT(num_refused > 100);
}

}  // namespace mw
