#include "checkpoint/trainer_state.h"

#include "base/error.h"
#include "checkpoint/fixtures.h"
#include "runner.h"

namespace mw {
namespace {

TrainerState example() {
  TrainerState state;
  state.step = 100;
  state.seed = ~uint64_t{0};
  state.microbatches = 4;
  state.mesh = {{"fsdp", 2}, {"data", 4}};
  state.data = R"({"epoch":1,"position":12345678901234})";
  state.run = R"({"nested":{"lr":0.0003},"text":"\u00e9"})";
  state.weights = {{"model-00001-of-00001.safetensors", {12, 0x00ff00ff00ff00ff}}};
  return state;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? throw std::runtime_error("no " + from) : text.replace(at, from.size(), to);
}

}  // namespace

TEST(checkpoint, trainer_state_round_trips) {
  TrainerState state = example();
  const TrainerState back = parse_trainer_state(trainer_state_text(state), "t");
  state.run = "{\"nested\":{\"lr\":0.0003},\"text\":\"\xc3\xa9\"}";  // compact, unescaped
  EXPECT(back == state);
  EXPECT(parse_trainer_state(trainer_state_text(TrainerState{}), "t") == TrainerState{});
}

TEST(checkpoint, trainer_state_errors_name_key_and_file) {
  const std::string text = trainer_state_text(example());
  const auto expect_refused = [&](const std::string& from, const std::string& to, const std::string& part) {
    EXPECT_ERROR(UserError, { parse_trainer_state(replaced(text, from, to), "a/trainer.json"); }, "a/trainer.json", part);
  };
  expect_refused("\"step\": 100", "\"step\": -1", "'step' should be a whole number of at least 0, found -1");
  expect_refused("\"step\": 100", "\"step\": 1.5", "'step' should be a whole number");
  expect_refused("\"step\": 100", "\"step\": \"100\"", "'step' should be a whole number");
  expect_refused("\"step\": 100", "\"step\": 18446744073709551615", "'step' should be a whole number");
  expect_refused("\"step\": 100,", "", "lacks the key 'step'");
  expect_refused("\"step\": 100,", "\"step\": 100, \"stepp\": 1,", "unknown key 'stepp' (did you mean 'step'?)");
  expect_refused("\"step\": 100,", "\"step\": 100, \"step\": 1,", "key 'step' occurs twice");
  expect_refused("\"microbatches\": 4", "\"microbatches\": 0", "'microbatches' should be a whole number of at least 1");
  expect_refused("\"version\": 1", "\"version\": 2", "'version' should be 1");
  expect_refused("meshwright-trainer", "other", "'format' should be");
  expect_refused("\"fsdp\",", "\"fsdp\", 0,", "'mesh' should be a list of [axis, size");
  expect_refused("00ff00ff00ff00ff", "00FF00ff00ff00ff", "16 lower-case hexadecimal digits");
  expect_refused("\"model-", "\"../model-", "expected a path inside the folder");
  EXPECT_ERROR(UserError, { parse_trainer_state("[]", "a/trainer.json"); }, "expected an object, found array");
}

TEST(checkpoint, replaced_weights_offer_a_fresh_optimizer) {
  const TemporaryFolder folder;
  TrainerState state;
  state.weights["w"] = write_file(folder / "w", "weights");
  check_weights_match(state, folder.path);
  put_file(folder / "w", "Weights");
  EXPECT_ERROR(UserError, { check_weights_match(state, folder.path); }, "is not the weight file", "reset_optimizer=true");
}

}  // namespace mw
