#include "checkpoint/folder.h"

#include "base/error.h"
#include "checkpoint/fixtures.h"
#include "runner.h"

namespace mw {
namespace {

const std::string kA = with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string("\0\0\x80\x3f", 4));
const std::string kB = with_length(R"({"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", std::string("\x80\x3f\0\x40", 4));

}  // namespace

TEST(checkpoint, folder_single_and_sharded) {
  const TemporaryFolder folder;
  put_file(folder / "m1.safetensors", kA);
  put_file(folder / "m2.safetensors", kB);
  put_file(folder / "model.safetensors.index.json", tensor_index_text({{"a", "m1.safetensors"}, {"b", "m2.safetensors"}}, 8));
  const TensorFolder sharded = TensorFolder::open(folder.path);
  EXPECT(sharded.names() == (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(sharded.num_bytes(), 8);
  float values[2];
  sharded.read("b", DType::kF32, values);
  EXPECT_EQ(values[1], 2.0f);
  sharded.read("b", {{1}, {2}}, DType::kF32, values);
  EXPECT_EQ(values[0], 2.0f);
  EXPECT_ERROR(UserError, { sharded.tensor("c.weight"); }, "has no tensor 'c.weight'");
  EXPECT_ERROR(UserError, { sharded.tensor("bb"); }, "did you mean 'b'?");

  put_file(folder / "model.safetensors", kA);
  EXPECT(TensorFolder::open(folder.path).names() == std::vector<std::string>{"a"});
}

TEST(checkpoint, folder_errors_name_what_is_wrong) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](const std::string& index, const std::string& part) {
    put_file(folder / "model.safetensors.index.json", index);
    EXPECT_ERROR(UserError, { TensorFolder::open(folder.path); }, "model.safetensors.index.json", part);
  };
  EXPECT_ERROR(UserError, { TensorFolder::open(folder.path); }, "neither model.safetensors nor");
  EXPECT_ERROR(UserError, { TensorFolder::open(folder / "none"); }, "expected a folder", "found nothing");
  put_file(folder / "m1.safetensors", kA);
  EXPECT_ERROR(UserError, { TensorFolder::open(folder / "m1.safetensors"); }, "expected a folder", "found a file");
  expect_refused(R"({"weight_map": {"a": "m3.safetensors"}})", "'m3.safetensors' that it lists is missing");
  expect_refused(R"({"weight_map": {"b": "m1.safetensors"}})", "tensor 'b' is not in 'm1.safetensors'");
  for (const char* outside : {"../m1.safetensors", "/etc/passwd", "x/m1.safetensors", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    expect_refused(std::string(R"({"weight_map": {"a": ")") + outside + "\"}}", "expected the name of a file in the same folder");
  }
  expect_refused(R"({"weight_map": {"a": 1}})", "should be a string, found number");
  expect_refused(R"({"weight_map": []})", "expected an object with the key 'weight_map'");
  expect_refused(R"([])", "expected an object with the key 'weight_map'");
  expect_refused(R"({"weight_map": {"a": "m1.safetensors", "a": "m1.safetensors"}})", "key 'a' occurs twice");
  put_file(folder / "pytorch_model.bin", "x");
  std::filesystem::remove(folder / "model.safetensors.index.json");
  EXPECT_ERROR(UserError, { TensorFolder::open(folder.path); }, "pickle, which is never read");
}

}  // namespace mw
