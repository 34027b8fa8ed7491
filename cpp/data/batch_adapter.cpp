#include "data/batch_adapter.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "data/loader.h"

namespace mw {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string type_text(const ArrayView& array) {
  const char* kind = array.kind == 'i'   ? "int"
                     : array.kind == 'u' ? "uint"
                     : array.kind == 'f' ? "float"
                     : array.kind == 'c' ? "complex"
                                         : "";
  if (array.kind == 'b') return "bool";
  return *kind ? kind + std::to_string(array.bytes * 8) : std::string("an array of kind '") + array.kind + "'";
}

// One array of a batch, its shape and type checked.
class Column {
 public:
  Column(std::string_view name, const ArrayView& array, const std::vector<int64_t>& shape, std::string_view kinds, const char* expected)
      : name_(name), array_(array) {
    if (array.shape.size() != 2) {
      throw UserError(concat_text(name, ": expected an array [batch, seq], found the shape ", shape_text(array.shape)));
    }
    if (array.shape != shape) {
      throw UserError(concat_text(name, ": expected the shape ", shape_text(shape), " of input_ids, found ", shape_text(array.shape)));
    }
    const bool wide = array.bytes == 4 || array.bytes == 8;
    if (kinds.find(array.kind) == std::string_view::npos || (array.kind == 'b' ? array.bytes != 1 : !wide)) {
      throw UserError(concat_text(name, ": expected ", expected, ", found ", type_text(array)));
    }
  }

  int64_t integer(int64_t index) const {
    if (array_.kind == 'b') return load<uint8_t>(index) != 0;
    return array_.bytes == 4 ? load<int32_t>(index) : load<int64_t>(index);
  }
  double real(int64_t index) const { return array_.bytes == 4 ? load<float>(index) : load<double>(index); }

  [[noreturn]] void refuse(int64_t index, const std::string& expected, const std::string& found) const {
    const int64_t seq = array_.shape[1];
    throw UserError(concat_text(name_, ", row ", index / seq, ", position ", index % seq, ": expected ", expected, ", found ", found));
  }

 private:
  template <typename T>
  T load(int64_t index) const {
    T value;
    std::memcpy(&value, static_cast<const std::byte*>(array_.data) + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
  }

  std::string_view name_;
  const ArrayView& array_;
};

constexpr const char* kIntegers = "int32 or int64";

std::optional<Column> optional_column(std::string_view name, const std::optional<ArrayView>& array, const std::vector<int64_t>& shape,
                                      std::string_view kinds = "i", const char* expected = kIntegers) {
  if (!array) return std::nullopt;
  return Column(name, *array, shape, kinds, expected);
}

// Token ids, or with `labels` also kNoTarget.
std::vector<int32_t> read_ids(const Column& column, int64_t size, int64_t vocab_size, bool labels) {
  std::vector<int32_t> ids(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const int64_t id = column.integer(i);
    if ((id < 0 || id >= vocab_size) && !(labels && id == kNoTarget)) {
      column.refuse(i, concat_text("a token id in 0..", vocab_size - 1, " (the vocabulary has ", vocab_size, ")", labels ? " or -100" : ""),
                    std::to_string(id));
    }
    ids[static_cast<size_t>(i)] = static_cast<int32_t>(id);
  }
  return ids;
}

void read_segments(const std::optional<Column>& mask, const std::optional<Column>& segments, ModelBatch& batch) {
  const int64_t size = batch.rows * batch.seq;
  batch.segment_ids.assign(static_cast<size_t>(size), 0);
  for (int64_t i = 0; i < size; ++i) {
    int64_t segment = segments ? segments->integer(i) : 0;
    if (segment > std::numeric_limits<int32_t>::max()) segments->refuse(i, "a segment id that fits 32 bits", std::to_string(segment));
    if (mask) {
      const int64_t real = mask->integer(i);
      if (real != 0 && real != 1) mask->refuse(i, "1 (a real token) or 0 (padding)", std::to_string(real));
      if (!real) segment = kPaddingSegment;
    }
    batch.segment_ids[static_cast<size_t>(i)] = segment < 0 ? kPaddingSegment : static_cast<int32_t>(segment);
  }
  if (!segments) return;
  std::unordered_set<int32_t> ended;
  for (int64_t row = 0; row < batch.rows; ++row) {
    ended.clear();
    int32_t current = kPaddingSegment;
    for (int64_t i = row * batch.seq; i < (row + 1) * batch.seq; ++i) {
      const int32_t segment = batch.segment_ids[static_cast<size_t>(i)];
      if (segment == kPaddingSegment || segment == current) continue;
      if (current != kPaddingSegment) ended.insert(current);
      if (ended.contains(segment)) segments->refuse(i, "the tokens of a segment side by side", concat_text("segment ", segment, " again"));
      current = segment;
    }
  }
}

// Padding inside a segment counts, as it does for rope: distances between tokens stay what they were.
void count_positions(ModelBatch& batch) {
  batch.position_ids.assign(batch.segment_ids.size(), 0);
  for (int64_t row = 0; row < batch.rows; ++row) {
    int32_t current = kPaddingSegment;
    int64_t first = 0;
    for (int64_t i = 0; i < batch.seq; ++i) {
      const auto at = static_cast<size_t>(row * batch.seq + i);
      const int32_t segment = batch.segment_ids[at];
      if (segment == kPaddingSegment) continue;
      if (segment != current) first = i;
      current = segment;
      batch.position_ids[at] = static_cast<int32_t>(i - first);
    }
  }
}

void read_positions(const Column& positions, ModelBatch& batch) {
  batch.position_ids.resize(batch.segment_ids.size());
  for (int64_t i = 0; i < batch.rows * batch.seq; ++i) {
    const int64_t position = positions.integer(i);
    if (position < 0 || position > std::numeric_limits<int32_t>::max()) {
      positions.refuse(i, "a position of at least 0 that fits 32 bits", std::to_string(position));
    }
    batch.position_ids[static_cast<size_t>(i)] = static_cast<int32_t>(position);
  }
}

double read_weight(const Column& weights, int64_t index) {
  const double weight = weights.real(index);
  if (!std::isfinite(weight) || weight < 0 || weight > std::numeric_limits<float>::max()) {
    weights.refuse(index, "a finite weight of at least 0", concat_text(weight));
  }
  return weight;
}

}  // namespace

ModelBatch adapt_batch(const UserBatch& user, int64_t vocab_size) {
  const std::vector<int64_t>& shape = user.input_ids.shape;
  const Column input_ids("input_ids", user.input_ids, shape, "i", kIntegers);
  if (shape[0] < 1 || shape[1] < 1) {
    throw UserError("input_ids: expected at least one row of at least one token, found the shape " + shape_text(shape));
  }
  if (user.labels && user.targets)
    throw UserError("a batch has either labels (aligned with input_ids) or targets (already shifted), found both");
  const auto labels = optional_column("labels", user.labels, shape), targets = optional_column("targets", user.targets, shape);
  const auto mask = optional_column("attention_mask", user.attention_mask, shape, "ib", "int32, int64 or bool");
  const auto segments = optional_column("segment_ids", user.segment_ids, shape);
  const auto positions = optional_column("position_ids", user.position_ids, shape);
  const auto weights = optional_column("loss_weights", user.loss_weights, shape, "f", "float32 or float64");

  ModelBatch batch;
  batch.rows = shape[0];
  batch.seq = shape[1];
  const int64_t size = batch.rows * batch.seq;
  batch.input_ids = read_ids(input_ids, size, vocab_size, false);
  read_segments(mask, segments, batch);
  if (positions) {
    read_positions(*positions, batch);
  } else {
    count_positions(batch);
  }

  std::vector<int32_t> given;
  if (targets) given = read_ids(*targets, size, vocab_size, true);
  if (labels) given = read_ids(*labels, size, vocab_size, true);
  const std::vector<int32_t>& from = given.empty() ? batch.input_ids : given;
  batch.targets.assign(static_cast<size_t>(size), kNoTarget);
  batch.loss_weights.assign(static_cast<size_t>(size), 0.0f);
  for (int64_t i = 0; i < size; ++i) {
    if (weights) read_weight(*weights, i);
    const auto at = static_cast<size_t>(i);
    // Labels and their weights belong to the token itself; the position before it predicts it.
    const int64_t source = targets ? i : i + 1;
    if (batch.segment_ids[at] == kPaddingSegment) continue;
    if (!targets && ((i + 1) % batch.seq == 0 || batch.segment_ids[at + 1] != batch.segment_ids[at])) continue;
    const int32_t target = from[static_cast<size_t>(source)];
    if (target == kNoTarget) continue;
    const double weight = weights ? read_weight(*weights, source) : 1.0;
    batch.targets[at] = target;
    batch.loss_weights[at] = static_cast<float>(weight);
    batch.weight_sum += batch.loss_weights[at];
    ++batch.num_targets;
  }
  return batch;
}

FurtherTokens further_tokens(const ModelBatch& batch, int64_t depth) {
  const size_t size = batch.input_ids.size();
  FurtherTokens further{.input_ids = std::vector<int32_t>(size, 0),
                        .targets = std::vector<int32_t>(size, kNoTarget),
                        .loss_weights = std::vector<float>(size, 0.0f)};
  double sum = 0;
  for (int64_t i = 0; i < batch.rows * batch.seq; ++i) {
    const auto at = static_cast<size_t>(i), from = static_cast<size_t>(i + depth);
    if (i % batch.seq + depth >= batch.seq || batch.segment_ids[at] == kPaddingSegment || batch.segment_ids[from] != batch.segment_ids[at])
      continue;
    further.input_ids[at] = batch.input_ids[from];
    further.targets[at] = batch.targets[from];
    further.loss_weights[at] = batch.loss_weights[from];
    sum += further.loss_weights[at];
  }
  if (sum > 0) {
    for (float& weight : further.loss_weights) weight = static_cast<float>(weight * (batch.weight_sum / sum));
  }
  return further;
}

}  // namespace mw
