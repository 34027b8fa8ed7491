#include "data/loader.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "data/permutation.h"
#include "data/prefetcher.h"
#include "data/shards.h"
#include "runner.h"

namespace mw {
namespace {

using Ids = std::vector<int32_t>;

bool same(const Batch& a, const Batch& b) {
  return a.input_ids == b.input_ids && a.targets == b.targets && a.segment_ids == b.segment_ids && a.position_ids == b.position_ids;
}

Batch rows_of(const Batch& batch, int64_t first, int64_t rows) {
  Batch part(rows, batch.seq);
  const auto cut = [&](const Ids& from, Ids& to) { std::copy_n(from.begin() + first * batch.seq, rows * batch.seq, to.begin()); };
  cut(batch.input_ids, part.input_ids);
  cut(batch.targets, part.targets);
  cut(batch.segment_ids, part.segment_ids);
  cut(batch.position_ids, part.position_ids);
  return part;
}

std::vector<int64_t> uneven_documents() { return {5, 1, 17, 300, 2, 2, 64, 33, 129, 1, 1, 8}; }  // 563 tokens

}  // namespace

TEST(data, permutation_is_a_bijection) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 100, 255, 256, 257, 1000, 4097}) {
    const Permutation order(size, 3, 1, "train");
    std::vector<bool> seen(static_cast<size_t>(size), false);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t place = order(i);
      EXPECT(place >= 0 && place < size && !seen[static_cast<size_t>(place)]);
      seen[static_cast<size_t>(place)] = true;
    }
  }
  const Permutation huge((int64_t{1} << 60) + 12345, 3, 1, "train");
  std::set<int64_t> places;
  for (int64_t i = 0; i < 1000; ++i) places.insert(huge(i));
  EXPECT_EQ(places.size(), size_t{1000});
}

TEST(data, permutation_differs_by_epoch_seed_and_name) {
  const auto order = [](uint64_t seed, uint64_t epoch, const char* name) {
    const Permutation permutation(1000, seed, epoch, name);
    std::vector<int64_t> places;
    for (int64_t i = 0; i < 1000; ++i) places.push_back(permutation(i));
    return places;
  };
  const auto base = order(0, 0, "a");
  EXPECT(base == order(0, 0, "a"));
  for (const auto& other : {order(1, 0, "a"), order(0, 1, "a"), order(0, 0, "b"), order(uint64_t{1} << 40, 0, "a")}) {
    int64_t fixed = 0;
    for (size_t i = 0; i < base.size(); ++i) fixed += base[i] == other[i];
    EXPECT(fixed < 10);  // 1 on average for unrelated orders
  }
}

// Small sizes are where a Feistel network could fail to mix: over many epochs every place must be reached equally often.
TEST(data, permutation_mixes_small_sizes) {
  for (const int64_t size : {2, 3, 7, 12}) {
    constexpr int64_t kEpochs = 4000;
    std::vector<int64_t> counts(static_cast<size_t>(size * size));
    for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
      const Permutation order(size, 11, static_cast<uint64_t>(epoch), "train");
      for (int64_t i = 0; i < size; ++i) ++counts[static_cast<size_t>(i * size + order(i))];
    }
    const double mean = static_cast<double>(kEpochs) / static_cast<double>(size);
    for (const int64_t count : counts) EXPECT_NEAR(static_cast<double>(count), mean, 6 * std::sqrt(mean));
  }
}

TEST(data, loader_rows_by_hand) {
  const TemporaryFolder folder;
  const Loader loader({{counting_split(folder, "v", 100, {3, 1, 6})}}, {.seq = 4, .shuffle = false});
  EXPECT_EQ(loader.samples_per_epoch(), int64_t{3});
  const Batch batch = loader.read(0, 4);
  EXPECT(batch.input_ids == (Ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0}));
  EXPECT(batch.targets == (Ids{1, 2, -100, -100, 5, 6, 7, 8, 9, -100, -100, -100, -100, -100, -100, -100}));
  EXPECT(batch.segment_ids == (Ids{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1}));
  EXPECT(batch.position_ids == (Ids{0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 0, 0, 0, 0, 0, 0}));
}

TEST(data, loader_uses_every_token_once_per_epoch) {
  const TemporaryFolder folder;
  const auto split = counting_split(folder, "train", 1000, uneven_documents(), 100);
  EXPECT(split->shards().size() > 2);
  for (const int64_t seq : {1, 7, 32, 281, 563}) {
    const Loader loader({{split}}, {.seq = seq, .seed = 5});
    const int64_t chunks = loader.samples_per_epoch();
    EXPECT_EQ(chunks, 563 / seq);
    std::vector<Ids> orders;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      const Batch batch = loader.read(epoch * chunks, chunks);
      std::set<int32_t> seen(batch.input_ids.begin(), batch.input_ids.end());
      EXPECT_EQ(static_cast<int64_t>(seen.size()), chunks * seq);   // each once
      EXPECT_EQ(*seen.rbegin() - *seen.begin() + 1, chunks * seq);  // side by side: what is left out is at the ends
      for (size_t i = 0; i < batch.input_ids.size(); ++i) {
        EXPECT(batch.targets[i] == batch.input_ids[i] + 1 || batch.targets[i] == kNoTarget);
      }
      orders.push_back(batch.input_ids);
    }
    if (chunks > 4) EXPECT(orders[0] != orders[1] && orders[1] != orders[2]);
  }
}

TEST(data, loader_in_order_asks_for_every_target_once) {
  const TemporaryFolder folder;
  const auto split = counting_split(folder, "validation", 1000, uneven_documents(), 100);
  for (const int64_t seq : {1, 7, 32, 281, 563}) {
    const Loader loader({{split}}, {.seq = seq, .shuffle = false});
    const Batch batch = loader.read(0, loader.samples_per_epoch() + 2);
    std::set<int32_t> inputs, targets;
    int64_t num_inputs = 0, num_targets = 0;
    for (size_t i = 0; i < batch.input_ids.size(); ++i) {
      if (batch.segment_ids[i] == kPaddingSegment) {
        EXPECT_EQ(batch.targets[i], kNoTarget);
        continue;
      }
      EXPECT_EQ(batch.input_ids[i], static_cast<int32_t>(num_inputs++));
      inputs.insert(batch.input_ids[i]);
      if (batch.targets[i] == kNoTarget) continue;
      EXPECT_EQ(batch.targets[i], batch.input_ids[i] + 1);
      targets.insert(batch.targets[i]);
      ++num_targets;
    }
    EXPECT_EQ(inputs.size(), size_t{562 % seq == 0 ? 562u : 563u});  // the last token alone makes no row
    EXPECT_EQ(num_targets, 563 - split->num_documents());            // all but each document's first token
    EXPECT_EQ(static_cast<int64_t>(targets.size()), num_targets);
    for (const int64_t start : split->document_starts()) EXPECT(!targets.contains(static_cast<int32_t>(start)));
  }
}

TEST(data, loader_slices_are_the_global_batch) {
  const TemporaryFolder folder;
  const auto a = counting_split(folder, "a", 1000, uneven_documents(), 100), b = counting_split(folder, "b", 1000, {200, 90}, 100);
  for (const bool shuffle : {true, false}) {
    const Loader loader({{a, 0.7}, {b, 0.3}}, {.seq = 16, .seed = 9, .shuffle = shuffle});
    for (int64_t step = 0; step < 12; ++step) {
      const Batch whole = loader.read(step * 8, 8);
      for (const int64_t ranks : {1, 2, 4}) {
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const int64_t rows = 8 / ranks;
          EXPECT(same(loader.read(step * 8 + rank * rows, rows), rows_of(whole, rank * rows, rows)));
        }
      }
    }
  }
}

TEST(data, prefetch_from_every_step_is_the_pure_function) {
  const TemporaryFolder folder;
  const auto loader = std::make_shared<Loader>(std::vector<DataSource>{{counting_split(folder, "a", 1000, uneven_documents())}},
                                               LoaderSettings{.seq = 16, .seed = 2});
  for (int64_t start = 0; start < 15; ++start) {
    Prefetcher whole(loader, {.first = start * 4, .stride = 4, .rows = 4});
    Prefetcher half(loader, {.first = start * 4 + 2, .stride = 4, .rows = 2});
    for (int64_t step = start; step < start + 5; ++step) {
      const Batch expected = loader->read(step * 4, 4);
      EXPECT(same(whole.next(), expected));
      EXPECT(same(half.next(), rows_of(expected, 2, 2)));
    }
  }
}

TEST(data, prefetch_hands_on_errors) {
  const TemporaryFolder folder;
  const std::string path = write_counting_split(folder, "a", 1000, {4000})[0];
  std::string bytes = get_file(path);
  bytes.back() ^= 1;
  put_file(path, bytes);
  const auto split = std::make_shared<TokenSplit>("a", std::vector<std::string>{path}, 1000);
  Prefetcher batches(std::make_shared<Loader>(std::vector<DataSource>{{split}}, LoaderSettings{.seq = 16}), {.stride = 4, .rows = 4});
  EXPECT_ERROR(UserError, { batches.next(); }, "token block 0");
  EXPECT_ERROR(UserError, { batches.next(); }, "token block 0");
}

TEST(data, mixture_follows_its_weights) {
  const std::vector<double> weights{5, 3, 2};
  const Mixture mixture(weights);
  std::vector<int64_t> next(3, 0);
  for (int64_t n = 0; n < 50000; ++n) {
    const Mixture::Place place = mixture.at(n);
    EXPECT_EQ(place.index, next[static_cast<size_t>(place.source)]++);  // no sample is left out or repeated
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(static_cast<double>(next[i]), static_cast<double>(n + 1) * weights[i] / 10, 4.0);
  }
  const std::vector<double> rare{1e9, 1, 1e-9};
  std::map<int64_t, int64_t> counts;
  const Mixture with_rare(rare);
  for (int64_t n = 0; n < 16384; ++n) ++counts[with_rare.at(n).source];
  EXPECT_EQ(counts[0], int64_t{16382});
  EXPECT_EQ(counts[1], int64_t{1});
  EXPECT_EQ(counts[2], int64_t{1});
  const std::vector<double> many(1000, 1.0);
  EXPECT(Mixture(many).at(123456).source < 1000);
}

TEST(data, mixture_repeats_each_source_in_its_own_epochs) {
  const TemporaryFolder folder;
  const auto big = counting_split(folder, "a", 2000, {1600}), small = counting_split(folder, "b", 2000, {160});
  const Loader loader({{big, 1.0}, {small, 1.0}}, {.seq = 16, .seed = 1});
  const Batch batch = loader.read(0, 200);  // 100 chunks of each: one epoch of a, ten of b
  std::map<int32_t, int> counts;
  for (int64_t row = 0; row < 200; ++row) ++counts[batch.input_ids[static_cast<size_t>(row * 16)]];
  for (const auto& [first, count] : counts) EXPECT_EQ(count, first < 160 ? 11 : 1);
  EXPECT_EQ(counts.size(), size_t{100});
}

TEST(data, loader_errors) {
  const TemporaryFolder folder;
  const auto split = counting_split(folder, "train", 100, {30});
  EXPECT_ERROR(UserError, { Loader({{split}}, {.seq = 31}); }, "seq", "at most the 30 tokens that train has", "found 31");
  EXPECT_ERROR(UserError, { Loader({{split}}, {.seq = 0}); }, "seq", "found 0");
  EXPECT_ERROR(UserError, { Loader({{split, 0.0}}, {.seq = 4}); }, "data source 0", "weight above 0");
  EXPECT_ERROR(UserError, { Loader({}, {.seq = 4}); }, "data sources", "found 0");
  EXPECT_ERROR(
      UserError, { Loader({{split}, {counting_split(folder, "other", 101, {30})}}, {.seq = 4}); }, "other", "vocabulary size 100", "101");
}

}  // namespace mw
