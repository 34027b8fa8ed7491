#include "data/loader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/philox.h"
#include "base/printable.h"
#include "data/permutation.h"

namespace mw {
namespace {

std::vector<double> weights_of(const std::vector<DataSource>& sources) {
  std::vector<double> weights;
  for (const DataSource& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

Batch::Batch(int64_t rows, int64_t seq) : rows(rows), seq(seq) {
  const auto size = static_cast<size_t>(rows * seq);
  input_ids.assign(size, 0);
  targets.assign(size, kNoTarget);
  segment_ids.assign(size, kPaddingSegment);
  position_ids.assign(size, 0);
}

Loader::Loader(std::vector<DataSource> sources, LoaderSettings settings)
    : sources_(std::move(sources)), settings_(settings), mixture_(weights_of(sources_)) {
  const int64_t seq = settings.seq;
  if (seq < 1) throw UserError(concat_text("seq: expected at least 1 token per row, found ", seq));
  for (const DataSource& source : sources_) {
    const TokenSplit& split = *source.split;
    if (seq > split.num_tokens()) {
      throw UserError(concat_text("seq: expected at most the ", split.num_tokens(), " tokens that ", printable(split.name(), 1000),
                                  " has, found ", seq));
    }
    if (split.vocab_size() != sources_[0].split->vocab_size()) {
      throw UserError(concat_text(printable(split.name(), 1000), ": expected the vocabulary size ", sources_[0].split->vocab_size(), " of ",
                                  printable(sources_[0].split->name(), 1000), ", found ", split.vocab_size()));
    }
    // In order, the split's last token makes no row of its own: it has no target.
    const int64_t in_order = std::max<int64_t>(1, (split.num_tokens() - 1 + seq - 1) / seq);
    starts_.push_back(starts_.back() + (settings.shuffle ? split.num_tokens() / seq : in_order));
  }
}

Loader::Chunk Loader::chunk(int64_t sample) const {
  const int64_t seq = settings_.seq;
  if (!settings_.shuffle) {
    const auto source = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), sample) - starts_.begin()) - 1;
    if (source == sources_.size()) return {nullptr, 0};
    return {sources_[source].split.get(), (sample - starts_[source]) * seq};
  }
  const Mixture::Place place = mixture_.at(sample);
  const auto source = static_cast<size_t>(place.source);
  const TokenSplit& split = *sources_[source].split;
  const int64_t chunks = starts_[source + 1] - starts_[source];
  const auto epoch = static_cast<uint64_t>(place.index / chunks);
  const std::string name = std::to_string(source);
  const Permutation order(chunks, settings_.seed, epoch, "data.order." + name);
  const auto spare = static_cast<uint64_t>(split.num_tokens() % seq);
  const auto skipped = RandomStream(settings_.seed, epoch, "data.skipped." + name).word(0) % (spare + 1);
  return {&split, static_cast<int64_t>(skipped) + order(place.index % chunks) * seq};
}

void Loader::fill(const Chunk& chunk, int64_t row, Batch& batch, std::span<int32_t> tokens) const {
  const int64_t seq = settings_.seq, left = chunk.split->num_tokens() - chunk.first;
  const int64_t count = std::min(seq, left);
  chunk.split->read(chunk.first, tokens.first(static_cast<size_t>(std::min(seq + 1, left))));
  const auto at = static_cast<size_t>(row * seq);
  std::copy_n(tokens.begin(), count, batch.input_ids.begin() + static_cast<std::ptrdiff_t>(at));
  int32_t segment = 0;
  for (int64_t begin = 0; begin < count; ++segment) {
    const int64_t document_end = chunk.split->document_end(chunk.first + begin) - chunk.first;
    const int64_t end = std::min(count, document_end);
    for (int64_t i = begin; i < end; ++i) {
      const size_t place = at + static_cast<size_t>(i);
      batch.segment_ids[place] = segment;
      batch.position_ids[place] = static_cast<int32_t>(i - begin);
      if (i + 1 < document_end) batch.targets[place] = tokens[static_cast<size_t>(i + 1)];
    }
    begin = end;
  }
}

Batch Loader::read(int64_t first, int64_t rows) const {
  MW_CHECK(first >= 0 && rows >= 0, first, " ", rows);
  Batch batch(rows, settings_.seq);
  std::vector<int32_t> tokens(static_cast<size_t>(settings_.seq) + 1);
  for (int64_t row = 0; row < rows; ++row) {
    const Chunk place = chunk(first + row);
    if (place.split) fill(place, row, batch, tokens);
  }
  return batch;
}

}  // namespace mw
