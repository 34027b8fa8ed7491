// Generator: text generation with a KV cache. Every step runs one static decode Program over a packed row of tokens; a prompt goes
// through it in chunks, then one token per request and step. Requests wait for a free slot.
//
//   Generator generator(session);
//   auto outputs = generator.generate({{.prompt = {1, 15, 7}, .max_new_tokens = 64}}, nullptr);
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "decode/sampler.h"
#include "session/session.h"

namespace mw {

struct GenerationRequest {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_new_tokens = 64;
  SamplingOptions sampling;
  std::vector<int32_t> eos_ids;  // any of them ends the text and is part of it
  uint64_t id = 0;               // enters the random numbers
};

struct GenerationOutput {
  std::vector<int32_t> ids;  // new tokens only
  std::vector<double> logprobs;
  std::string finish_reason;  // "eos", "length", "stopped"
};

class Generator {
 public:
  explicit Generator(Session& session) : session_(session) {}

  // `on_token(request, id)` is called for each new token as it is made; returning true ends that request ("stopped").
  using OnToken = std::function<bool(size_t request, int32_t id)>;
  // UserError for an empty prompt, an id outside the vocabulary, or a length beyond the model's positions.
  std::vector<GenerationOutput> generate(const std::vector<GenerationRequest>& requests, const OnToken& on_token);

 private:
  LoadedPlan& plan(int64_t tokens);
  void prepare(const std::vector<GenerationRequest>& requests);

  Session& session_;
  CacheSizes sizes_;
};

}  // namespace mw
