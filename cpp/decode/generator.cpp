#include "decode/generator.h"

#include <algorithm>

#include "base/error.h"
#include "ir/dim_names.h"

namespace mw {
namespace {

constexpr int64_t kMostSlots = 16;
constexpr int64_t kPrefillTokens = 256;  // of one step
constexpr int64_t kShortestCache = 64;

int64_t bucket(int64_t n, int64_t smallest) {
  int64_t size = smallest;
  while (size < n) size *= 2;
  return size;
}

// A request at work in a slot.
struct Active {
  size_t request = 0;
  bool used = false;
  size_t consumed = 0;   // prompt tokens whose keys and values are in the cache
  int64_t position = 0;  // of the next token to be fed
  int32_t next = 0;      // the token to feed once the prompt is consumed
};

// One step's row of tokens.
struct Row {
  explicit Row(int64_t tokens, int64_t slots)
      : ids(static_cast<size_t>(tokens), 0),
        positions(ids),
        slot_of(static_cast<size_t>(tokens), -1),
        logit_rows(static_cast<size_t>(slots), -1) {}
  std::vector<int32_t> ids, positions, slot_of, logit_rows;
  size_t filled = 0;
  void add(int32_t id, int64_t position, size_t slot) {
    ids[filled] = id;
    positions[filled] = static_cast<int32_t>(position);
    slot_of[filled++] = static_cast<int32_t>(slot);
  }
};

void check_request(const GenerationRequest& request, const ModelConfig& config) {
  check_sampling(request.sampling);
  if (request.prompt.empty()) throw UserError("a prompt is empty; expected at least one token");
  if (request.max_new_tokens < 0) throw UserError("max_new_tokens is " + std::to_string(request.max_new_tokens) + "; expected 0 or more");
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < 0 || request.prompt[i] >= config.vocab_size) {
      throw UserError("token id " + std::to_string(request.prompt[i]) + " at position " + std::to_string(i) +
                      " of a prompt is outside the vocabulary of " + std::to_string(config.vocab_size));
    }
  }
  const int64_t length = static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens;
  if (length > config.max_position_embeddings) {
    throw UserError("a prompt of " + std::to_string(request.prompt.size()) +
                    " tokens and max_new_tokens=" + std::to_string(request.max_new_tokens) + " need " + std::to_string(length) +
                    " positions, but the model has max_position_embeddings=" + std::to_string(config.max_position_embeddings) +
                    "; at most " +
                    std::to_string(std::max<int64_t>(0, config.max_position_embeddings - static_cast<int64_t>(request.prompt.size()))) +
                    " new tokens fit");
  }
}

}  // namespace

void Generator::prepare(const std::vector<GenerationRequest>& requests) {
  int64_t longest = 1;
  for (const GenerationRequest& request : requests)
    longest = std::max(longest, static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens);
  static_assert(kMostSlots <= kPrefillTokens, "a prefill step is the longest");
  sizes_ = {.slots = bucket(std::min<int64_t>(static_cast<int64_t>(requests.size()), kMostSlots), 1),
            .length = bucket(longest, kShortestCache),
            .step_tokens = kPrefillTokens};
  session_.use_caches(sizes_);
}

LoadedPlan& Generator::plan(int64_t tokens) {
  return session_.plan("decode " + std::to_string(tokens), [&](double factor) {
    const DecodeSize size{.tokens = tokens,
                          .slots = sizes_.slots,
                          .cache_length = sizes_.length,
                          .dtype = session_.options().dtype,
                          .step_tokens = sizes_.step_tokens};
    PlanOptions options = session_.plan_options(factor);
    // One packed row: neither its batch of 1 nor its few tokens are sharded; ranks of those axes work on the same row.
    std::erase_if(options.rules.compute,
                  [](const RuleRow& row) { return row.dim == "batch" || row.dim == "seq" || row.dim == kExpertRows; });
    return plan_single_stages(trace_decode(session_.config(), size), "decode", options);
  });
}

std::vector<GenerationOutput> Generator::generate(const std::vector<GenerationRequest>& requests, const OnToken& on_token) {
  for (const GenerationRequest& request : requests) check_request(request, session_.config());
  std::vector<GenerationOutput> outputs(requests.size());
  if (requests.empty()) return outputs;
  const Session::Use use(session_);
  prepare(requests);
  std::vector<Active> slots(static_cast<size_t>(sizes_.slots));
  Sampler sampler;
  size_t waiting = 0;
  const int64_t vocab = session_.config().vocab_size;

  const auto take_new_token = [&](Active& active, std::span<const float> logits) {
    const GenerationRequest& request = requests[active.request];
    GenerationOutput& output = outputs[active.request];
    const SampledToken token = sampler.choose(logits, request.sampling, request.id, active.position);
    output.ids.push_back(token.id);
    output.logprobs.push_back(token.logprob);
    active.next = token.id;
    if (on_token && on_token(active.request, token.id)) output.finish_reason = "stopped";
    if (std::find(request.eos_ids.begin(), request.eos_ids.end(), token.id) != request.eos_ids.end()) output.finish_reason = "eos";
    if (output.finish_reason.empty() && static_cast<int64_t>(output.ids.size()) >= request.max_new_tokens) output.finish_reason = "length";
    if (!output.finish_reason.empty()) active.used = false;
  };

  for (;;) {
    for (Active& active : slots) {
      while (!active.used && waiting < requests.size()) {
        if (requests[waiting].max_new_tokens == 0) {
          outputs[waiting++].finish_reason = "length";
          continue;
        }
        active = Active{.request = waiting++, .used = true};
      }
    }
    bool prefill = false, any = false;
    for (const Active& active : slots) {
      any |= active.used;
      prefill |= active.used && active.consumed < requests[active.request].prompt.size();
    }
    if (!any) return outputs;

    const int64_t tokens = prefill ? sizes_.step_tokens : sizes_.slots;
    Row row(tokens, sizes_.slots);
    for (size_t s = 0; s < slots.size(); ++s) {
      Active& active = slots[s];
      if (!active.used) continue;
      const std::vector<int32_t>& prompt = requests[active.request].prompt;
      if (active.consumed == prompt.size() && row.filled < static_cast<size_t>(tokens)) {
        row.logit_rows[s] = static_cast<int32_t>(row.filled);
        row.add(active.next, active.position++, s);
        continue;
      }
      while (active.consumed < prompt.size() && row.filled < static_cast<size_t>(tokens)) {
        if (active.consumed + 1 == prompt.size()) row.logit_rows[s] = static_cast<int32_t>(row.filled);
        row.add(prompt[active.consumed++], active.position++, s);
      }
    }
    LoadedPlan& step = plan(tokens);
    const Type row_type{DType::kI32, {{"batch", 1}, {"seq", tokens}}}, slot_type{DType::kI32, {{"slot", sizes_.slots}}};
    session_.engine().run(step,
                          {{"input_ids", {row_type, row.ids.data()}},
                           {"position_ids", {row_type, row.positions.data()}},
                           {"slots", {row_type, row.slot_of.data()}},
                           {"logit_rows", {slot_type, row.logit_rows.data()}}},
                          {});
    const float* logits = reinterpret_cast<const float*>(session_.engine().result(step, "logits"));
    for (size_t s = 0; s < slots.size(); ++s) {
      if (slots[s].used && row.logit_rows[s] >= 0)
        take_new_token(slots[s], {logits + static_cast<int64_t>(s) * vocab, static_cast<size_t>(vocab)});
    }
  }
}

}  // namespace mw
