// Mutations of valid files: each is read or refused with a UserError; nothing crashes, hangs or takes memory beyond the input's size.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"
#include "checkpoint/fixtures.h"
#include "checkpoint/folder.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/trainer_state.h"
#include "fuzz/mutator.h"
#include "runner.h"

namespace mw {
namespace {

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// Runs `read` on mutations of `valid`; some must still be read, most must be refused.
template <typename Read>
void fuzz(const std::string& valid, int num_rounds, uint32_t seed, Read read) {
  Mutator mutator(seed);
  int num_read = 0, num_refused = 0;
  const int64_t before = peak_resident_bytes();
  for (int round = 0; round < num_rounds; ++round) {
    const std::string text = mutator.mutate_text(valid, kSafetensorsWords);
    try {
      read(text);
      ++num_read;
    } catch (const UserError& e) {
      ++num_refused;
      EXPECT(is_valid_utf8(e.what()));
      EXPECT(std::string(e.what()).size() < 5000);
    }
  }
  EXPECT(num_read > num_rounds / 200);
  EXPECT(num_refused > num_rounds / 4);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT(peak_resident_bytes() - before < (32 << 20));
#endif
}

std::string valid_header() {
  return R"({"__metadata__":{"format":"pt","k":"v"},"model.a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"q":{"dtype":"F8_E4M3","shape":[2,0],"data_offsets":[32,32]},"s":{"dtype":"I64","shape":[],"data_offsets":[32,40],"more":[1,{"x":null}]}}  )";
}

}  // namespace

TEST(checkpoint, fuzz_safetensors_headers) {
  fuzz(valid_header(), 60000, 1, [](const std::string& header) {
    int64_t covered = 0;
    for (const StoredTensor& tensor : parse_safetensors_header(header, 40, "t").tensors) {
      EXPECT_EQ(tensor.begin, covered);
      EXPECT(tensor.end >= tensor.begin && tensor.end <= 40);
      covered = tensor.end;
    }
    EXPECT_EQ(covered, 40);
  });
}

TEST(checkpoint, fuzz_safetensors_files) {
  const int memory_file = ::memfd_create("fuzz", MFD_CLOEXEC);  // a regular file without a disk behind it
  const std::string path = "/proc/self/fd/" + std::to_string(memory_file);
  fuzz(with_length(valid_header(), std::string(40, 'd')), 6000, 2, [&](const std::string& bytes) {
    EXPECT(::ftruncate(memory_file, 0) == 0);
    EXPECT_EQ(::pwrite(memory_file, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    const SafetensorsFile file = SafetensorsFile::open(path);
    unsigned sum = 0;
    for (const StoredTensor& tensor : file.tensors()) {
      for (const std::byte b : file.bytes(tensor)) sum += static_cast<unsigned>(b);
      if (tensor.num_bytes() == 0) continue;
      if (const auto dtype = dtype_of_stored(tensor.dtype)) {
        std::vector<std::byte> copy(static_cast<size_t>(tensor.num_bytes()));
        file.read(tensor, whole(tensor.shape), *dtype, copy.data());
      }
    }
    EXPECT(sum <= 255 * bytes.size());
  });
  ::close(memory_file);
}

TEST(checkpoint, fuzz_indexes) {
  const std::string valid =
      tensor_index_text({{"model.a", "model-00001-of-00002.safetensors"}, {"b", "model-00002-of-00002.safetensors"}}, 40);
  fuzz(valid, 20000, 3, [](const std::string& text) {
    for (const auto& [tensor, file] : parse_tensor_index(text, "t")) EXPECT(file.find('/') == std::string::npos && stays_inside(file));
  });
}

TEST(checkpoint, fuzz_trainer_states_and_manifests) {
  TrainerState state;
  state.mesh = {{"data", 2}, {"fsdp", 4}};
  state.data = R"({"position":123,"sources":[1,2,3]})";
  state.run = R"({"model":{"layers":2},"lr":0.001})";
  state.weights = {{"model-00001-of-00001.safetensors", {1234, 0x123456789abcdef0}}};
  fuzz(trainer_state_text(state), 20000, 4, [](const std::string& text) {
    const TrainerState read = parse_trainer_state(text, "t");
    EXPECT(parse_trainer_state(trainer_state_text(read), "t") == read);
  });
  fuzz(manifest_text({{"config.json", {3, 4}}, {"trainer/trainer.json", {1234, 0x123456789abcdef0}}}), 20000, 5,
       [](const std::string& text) {
         for (const auto& [path, digest] : parse_manifest(text, "t")) EXPECT(stays_inside(path) && digest.bytes >= 0);
       });
}

// Not mutations but the shapes that hurt: text that asks for much more than it is.
TEST(checkpoint, hostile_headers_cost_no_more_than_their_size) {
  for (const std::string& unit :
       {std::string("[],"), std::string("{\"a\":1},"), std::string("1,"), std::string("\"\","), std::string("[[[[1]]]],")}) {
    std::string header = R"({"a":{"x":[)";
    while (header.size() < 4 << 20) header += unit;
    header += R"(1],"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    const int64_t before = peak_resident_bytes();
    EXPECT_EQ(parse_safetensors_header(header, 4, "t").tensors.size(), size_t{1});
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT(peak_resident_bytes() - before < (4 << 20));
#else
    (void)before;
#endif
  }
}

}  // namespace mw
