// From what a user hands to `trainer.step`, `loss_and_gradients` and `model(...)` to the inputs of a model: checked, shifted, masked.
//
//   ModelBatch batch = adapt_batch({.input_ids = ids, .attention_mask = mask}, vocab_size);
//
// All arrays are [batch, seq] and C-contiguous. Everything a user can get wrong is a UserError that names array, row and position.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mw {

// A view of a user's array.
struct ArrayView {
  char kind = 'i';    // NumPy's: 'i' signed, 'u' unsigned, 'b' boolean, 'f' float
  int64_t bytes = 0;  // of one element
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

struct UserBatch {
  ArrayView input_ids = {};                      // int32 or int64, in [0, vocab_size)
  std::optional<ArrayView> labels = {};          // aligned with input_ids, shifted here; -100 is ignored. Absent: input_ids
  std::optional<ArrayView> targets = {};         // instead of labels: already shifted
  std::optional<ArrayView> attention_mask = {};  // 1 real, 0 padding, left or right; integers or booleans
  std::optional<ArrayView> segment_ids = {};     // a token sees tokens of its own segment only; negative is padding
  std::optional<ArrayView> position_ids = {};    // at least 0. Absent: counted from the first real token of each segment
  std::optional<ArrayView> loss_weights = {};    // float32 or float64, finite, at least 0; aligned as the labels or targets are
};

struct ModelBatch {
  int64_t rows = 0, seq = 0;
  std::vector<int32_t> input_ids;
  std::vector<int32_t> targets;       // of this position; kNoTarget after a segment's last token, on padding and where ignored
  std::vector<float> loss_weights;    // 0 where there is no target
  std::vector<int32_t> segment_ids;   // kPaddingSegment on padding
  std::vector<int32_t> position_ids;  // 0 on padding unless given
  int64_t num_targets = 0;
  double weight_sum = 0;
};

ModelBatch adapt_batch(const UserBatch& user, int64_t vocab_size);

// What multi-token prediction of one depth reads: the tokens, targets and weights `depth` positions further on in the same segment.
struct FurtherTokens {
  std::vector<int32_t> input_ids;   // 0 behind a segment's end
  std::vector<int32_t> targets;     // kNoTarget there
  std::vector<float> loss_weights;  // scaled so that their sum is the batch's weight_sum: one scale serves every depth
};

FurtherTokens further_tokens(const ModelBatch& batch, int64_t depth);

}  // namespace mw
