// From token splits to the rows of training batches; docs/formats/token_shards.md, "How batches are cut".
//
//   const Loader loader({{train, 1.0}}, {.seq = 1024, .seed = 0});
//   Batch batch = loader.read(step * 8, 8);                 // a pure function: any rank asks for any rows
//
// The documents of a split stand one after another and are cut every `seq` tokens, without padding. A row is `seq` inputs and, as
// targets, the tokens after them (it reads one token of the next row), so no token is lost as a target; a document's first token is
// never one. Segments are numbered from 0 within a row; positions count from the document's first token in the row.
//
// Shuffled: sample n of a source is chunk permutation(n % chunks) of epoch n / chunks; the num_tokens % seq tokens that fill no row
// are left out, split between the front and the end of the stream by a number drawn for each epoch. In order: one pass over all
// sources, the last row padded; samples after the last are all padding.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/mixture.h"
#include "data/token_split.h"

namespace mw {

inline constexpr int32_t kNoTarget = -100;      // Hugging Face's ignored label
inline constexpr int32_t kPaddingSegment = -1;  // tokens that no real token may see

// i32[batch=rows, seq] each.
struct Batch {
  int64_t rows = 0, seq = 0;
  std::vector<int32_t> input_ids, targets, segment_ids, position_ids;

  Batch() = default;
  Batch(int64_t rows, int64_t seq);  // all padding
};

struct DataSource {
  std::shared_ptr<const TokenSplit> split;
  double weight = 1.0;
};

struct LoaderSettings {
  int64_t seq = 0;
  uint64_t seed = 0;
  bool shuffle = true;
};

class Loader {
 public:
  // UserError: seq below 1 or longer than a source, sources of different vocabulary sizes, a weight that is not above 0.
  Loader(std::vector<DataSource> sources, LoaderSettings settings);

  int64_t seq() const { return settings_.seq; }
  // Rows of one pass over all sources. A mixture repeats its sources at rates of their own; then it is only a measure of size.
  int64_t samples_per_epoch() const { return starts_.back(); }

  // Samples [first, first + rows). Any number of threads at once.
  Batch read(int64_t first, int64_t rows) const;

 private:
  struct Chunk {
    const TokenSplit* split;
    int64_t first;  // token
  };
  Chunk chunk(int64_t sample) const;
  void fill(const Chunk& chunk, int64_t row, Batch& batch, std::span<int32_t> tokens) const;

  std::vector<DataSource> sources_;
  LoaderSettings settings_;
  Mixture mixture_;
  std::vector<int64_t> starts_{0};  // sums of the sources' chunks
};

}  // namespace mw
