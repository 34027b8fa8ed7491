#include "exec/cpu/kernels/cross_entropy.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "exec/cpu/gemm_tiles.h"
#include "exec/cpu/kernels/cross_entropy_kernels.h"

namespace mw {

const CrossEntropyKernels& cross_entropy_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return avx2::kCrossEntropyKernels;
    case Isa::kAvx512:
      return avx512::kCrossEntropyKernels;
    case Isa::kAvx512Bf16:
    case Isa::kAmx:
      return avx512bf16::kCrossEntropyKernels;
  }
  throw InternalError("unknown instruction set");
}

namespace {

constexpr int64_t kVocabTile = 128;          // rows of the vocabulary in one tile
constexpr int64_t kVocabBlock = 2048;        // rows whose e and w stay in the last-level cache between the logits and dX
constexpr int64_t kTurnedVocabBlock = 2048;  // rows of w that are packed at once
constexpr int64_t kNearWords = 512;          // of e, which stay in the second-level cache between the logits and dX
constexpr int64_t kGroupFloats = 3 << 16;    // of x in one group of tokens: as many are those of dX
constexpr int64_t kMostGroupPanels = 4;
constexpr int64_t kTokenTile = 64;  // rows of dX in one tile
constexpr int64_t kPanelGroup = 4;  // panels of embed in one tile
constexpr float kLargestExponent = 60.0f;

FloatKind kind_of(DType type) { return type == DType::kF32 ? kFloat32 : kBFloat16; }

// Rows of `n` floats with no stride that maps many rows to one cache set.
int64_t padded_row(int64_t n) { return round_up(n, 16) + (round_up(n, 16) % 256 == 0 ? 16 : 0); }

// Everything whose size or place follows from the shape: the arrays of one chunk in the workspace.
struct Layout {
  Word word;
  bool turned;  // dX is computed as its transpose, w^T e: the row operand cannot be read down the columns of e
  bool pack_x;  // dW reads x_scaled as panels
  bool copy_w;  // w is not readable in place as f32 lanes: converted or padded block by block
  int64_t chunk, x_words, token_row, embed_row, vocab_tiles, vocab_block, block_words;
  int64_t near_rows;  // of the vocabulary, whose e is kept as dX reads it
  int64_t x_panel, reference, target, slope, sum, partial, e, e_near, w_block, w_panel, dx_sum, x_scaled, x_scaled_panel, bytes;

  Layout(const CrossEntropy& c, CrossEntropyPass pass, Isa isa) {
    const bool pairs = c.x.type == DType::kBF16 && c.w.type == DType::kBF16 && gemm_kernels(isa).has_bf16_pairs;
    const bool gradients = pass != CrossEntropyPass::kForward;
    word = pairs ? Word::kBf16Pair : Word::kF32;
    const GemmKernels& kernels = gemm_kernels(isa);
    turned = kernels.rows_of_pairs(word) || (word == Word::kF32 && kernels.packs_f32);
    pack_x = pairs || turned;
    vocab_block = std::min(turned ? kTurnedVocabBlock : kVocabBlock, round_up(c.vocab, kVocabTile));
    copy_w = !pairs && (c.w.type != DType::kF32 || (gradients && !turned && (c.embed % 16 != 0 || share_cache_sets(c.w.row))));
    chunk = std::max<int64_t>(1, std::min(c.chunk, c.tokens));
    x_words = ceil_div(c.embed, elements_per_word(word));
    token_row = padded_row(Panels(chunk, kernels).padded());
    embed_row = padded_row(c.embed);
    vocab_tiles = ceil_div(c.vocab, kVocabTile);
    int64_t next = 0;
    const auto take = [&](bool wanted, int64_t size) {
      const int64_t at = next;
      if (wanted) next += round_up(size, 64);
      return at;
    };
    x_panel = take(true, Panels(chunk, kernels).padded() * x_words * 4);
    reference = take(true, token_row * 4);
    target = take(true, token_row * 4);
    slope = take(c.softcap > 0, token_row * 4);
    sum = take(true, token_row * 4);
    partial = take(true, vocab_tiles * 2 * token_row * 4);
    w_block = take(copy_w, vocab_block * embed_row * 4);
    e = take(gradients, c.vocab * token_row * (pairs ? 2 : 4));
    near_rows = turned ? std::min(vocab_block, kNearWords * elements_per_word(word)) : vocab_block;
    e_near = take(gradients && (pairs || turned), near_rows / elements_per_word(word) * token_row * 4);
    block_words = vocab_block / elements_per_word(word);
    w_panel = take(gradients && (pairs || turned), turned ? packed_rows_bytes(kernels, word, c.embed, block_words)
                                                          : vocab_block / 2 * Panels(c.embed, kernels).padded() * 4);
    dx_sum = take(gradients, turned ? c.embed * token_row * 4 : chunk * embed_row * 4);
    x_scaled = take(gradients, chunk * embed_row * 4);
    x_scaled_panel = take(gradients && pack_x, ceil_div(chunk, elements_per_word(word)) * Panels(c.embed, kernels).padded() * 4);
    bytes = next;
  }
};

// One pass over the tokens, chunk by chunk.
class Run {
 public:
  Run(const CrossEntropy& c, CrossEntropyPass pass, Isa isa, void* workspace, ThreadPool& pool)
      : c_(c),
        pass_(pass),
        gemm_(gemm_kernels(isa)),
        kernels_(cross_entropy_kernels(isa)),
        exp_tile_(c.softcap > 0 ? kernels_.exp_capped_tile : kernels_.exp_tile),
        layout_(c, pass, isa),
        base_(static_cast<char*>(workspace)),
        pool_(pool),
        embed_panels_(c.embed, gemm_),
        multiply_(gemm_, layout_.word),
        pairs_(layout_.word == Word::kBf16Pair) {}

  void forward(const CrossEntropyForward& out) {
    for (int64_t first = 0; first < c_.tokens; first += layout_.chunk) {
      begin_chunk(first);
      set_references(nullptr, out.target_logit);
      do {
        for (int64_t block = 0; block < c_.vocab; block += layout_.vocab_block) exponentials(block);
      } while (!sums_are_safe());
      write_loss(out.lse, nullptr, out.nll);
    }
  }

  void gradients(const CrossEntropyGradients& g) {
    for (int64_t first = 0; first < c_.tokens; first += layout_.chunk) {
      begin_chunk(first);
      set_references(g.lse_in, nullptr);
      do {
        for (int64_t block = 0; block < c_.vocab; block += layout_.vocab_block) {
          if (layout_.turned) {
            exponentials_and_dx(block);
          } else {
            exponentials(block);
            add_to_dx(block);
          }
        }
      } while (pass_ == CrossEntropyPass::kWithGradients && !sums_are_safe());
      if (pass_ == CrossEntropyPass::kWithGradients) write_loss(g.lse, g.target_logit, g.nll);
      finish_dx(g);
      add_to_dw(g, g.accumulate_dw || first > 0);
    }
    if (c_.tokens == 0 && !g.accumulate_dw) {
      for (int64_t v = 0; v < c_.vocab; ++v) std::fill_n(g.dw + v * g.dw_row, c_.embed, 0.0f);
    }
  }

 private:
  float* floats(int64_t offset) const { return reinterpret_cast<float*>(base_ + offset); }
  const char* x_row(int64_t token) const { return static_cast<const char*>(c_.x.data) + token * c_.x.row * dtype_bytes(c_.x.type); }
  const char* w_row(int64_t v) const { return static_cast<const char*>(c_.w.data) + v * c_.w.row * dtype_bytes(c_.w.type); }
  bool ignored(int64_t token) const { return c_.targets[token] < 0; }
  bool mine(int64_t token) const { return c_.targets[token] >= c_.vocab_offset && c_.targets[token] < c_.vocab_offset + c_.vocab; }
  const void* target_row(int64_t token) const { return w_row(c_.targets[token] - c_.vocab_offset); }
  int64_t block_rows(int64_t block) const { return std::min(layout_.vocab_block, c_.vocab - block); }
  float* partial_sum(int64_t tile) const { return floats(layout_.partial) + tile * 2 * layout_.token_row; }
  float* partial_max(int64_t tile) const { return partial_sum(tile) + layout_.token_row; }

  void begin_chunk(int64_t first) {
    first_ = first;
    tokens_ = std::min(layout_.chunk, c_.tokens - first);
    const Panels panels(tokens_, gemm_);
    pool_.run(panels.count(), [&](int64_t i, int) {
      pack_function(gemm_, c_.x.type == DType::kBF16,
                    layout_.word)({.panel = base_ + layout_.x_panel + panels.start(i) * layout_.x_words * 4,
                                   .width = panels.width(i),
                                   .lanes = panels.lanes(i),
                                   .depth = c_.embed,
                                   .source = x_row(first + panels.start(i)),
                                   .depth_stride = 1,
                                   .lane_stride = c_.x.row});
    });
  }

  // The logit subtracted in each exponent: the given lse, else the target's, else (no target here) that of the first row of w.
  void set_references(const float* lse, float* target_logit) {
    float* reference = floats(layout_.reference);
    std::fill_n(reference, layout_.token_row, 0.0f);
    const auto dot = kernels_.dot[kind_of(c_.x.type)][kind_of(c_.w.type)];
    const bool logits_wanted = lse == nullptr || c_.softcap > 0;  // of the targets, which the slopes follow from
    pool_.run(ceil_div(tokens_, 64), [&](int64_t group, int) {
      const int64_t begin = group * 64, end = std::min(tokens_, begin + 64);
      for (int64_t i = begin; i < end && logits_wanted; ++i)
        reference[i] = dot(x_row(first_ + i), mine(first_ + i) ? target_row(first_ + i) : w_row(0), c_.embed);
      if (c_.softcap > 0) kernels_.cap(reference + begin, floats(layout_.slope) + begin, end - begin, c_.softcap);
      if (lse != nullptr) std::copy_n(lse + first_ + begin, end - begin, reference + begin);
      for (int64_t i = begin; i < end && target_logit != nullptr; ++i) target_logit[first_ + i] = mine(first_ + i) ? reference[i] : 0.0f;
    });
    std::copy_n(reference, tokens_, floats(layout_.target));  // a redo moves the reference
  }

  // d loss / d x . w_target of token i of the chunk, but for the softmax.
  float target_scale(const CrossEntropyGradients& g, int64_t i) const {
    return c_.softcap > 0 ? g.scale[first_ + i] * floats(layout_.slope)[i] : g.scale[first_ + i];
  }

  // e for the rows [block, block + 2048) of the vocabulary, and their partial sums and maxima.
  void exponentials(int64_t block) {
    const int64_t rows = block_rows(block);
    const Panels panels(tokens_, gemm_);
    pool_.run(ceil_div(rows, kVocabTile), [&](int64_t tile, int) {
      const int64_t begin = block + tile * kVocabTile, end = std::min(c_.vocab, begin + kVocabTile);
      prepare_w(block, begin, end);
      for (int64_t panel = 0; panel < panels.count(); ++panel) {  // one panel of tokens stays near while the rows of w pass
        exponentials_of(panels, block, {block, block + rows}, {begin, end, panel, panel + 1});
      }
    });
  }

  // The same with turned dX, by groups of tokens: what a worker writes of e it reads while it is near.
  void exponentials_and_dx(int64_t block) {
    const int64_t rows = block_rows(block);
    pool_.run(ceil_div(rows, kVocabTile), [&](int64_t tile, int) {
      const int64_t begin = block + tile * kVocabTile;
      prepare_w(block, begin, std::min(c_.vocab, begin + kVocabTile));
    });
    const Panels panels(tokens_, gemm_);
    const int64_t groups = token_groups(panels);
    pool_.run(groups, [&](int64_t group, int) {
      const int64_t panel = group * panels.count() / groups, panel_end = (group + 1) * panels.count() / groups;
      for (int64_t first = block; first < block + rows; first += layout_.near_rows) {
        const NearRows near{first, std::min(block + rows, first + layout_.near_rows)};
        for (int64_t begin = first; begin < near.end; begin += kVocabTile) {
          exponentials_of(panels, block, near, {begin, std::min(near.end, begin + kVocabTile), panel, panel_end});
        }
        add_to_dx(panels, block, near, panel, panel_end);
      }
    });
  }
  // Groups of tokens whose panels of x, e and dX a second-level cache holds; as many for each thread.
  int64_t token_groups(const Panels& panels) const {
    const int64_t most = std::clamp<int64_t>(kGroupFloats / (kPanelLanes * c_.embed), 1, kMostGroupPanels);
    return std::min(panels.count(), round_up(ceil_div(panels.count(), most), pool_.threads()));
  }

  // What dX reads of e: all rows of a block, or with turned dX the near ones, in panels.
  struct NearRows {
    int64_t begin, end;
    int64_t words(Word word) const { return ceil_div(end - begin, elements_per_word(word)); }
  };

  // e of rows [range.row, range.row_end) of the vocabulary, one tile of it, for some panels of tokens.
  void exponentials_of(const Panels& panels, int64_t block, NearRows near, TileRange range) {
    const int64_t begin = range.row, lane = panels.start(range.panel);
    float* sum = partial_sum(begin / kVocabTile);
    float* largest = partial_max(begin / kVocabTile);
    const int64_t lanes = panels.start(range.panel_end - 1) + panels.width(range.panel_end - 1) - lane;
    std::fill_n(sum + lane, lanes, 0.0f);
    std::fill_n(largest + lane, lanes, -std::numeric_limits<float>::infinity());
    const LaneOperand x{.data = base_ + layout_.x_panel, .words = layout_.x_words};
    range.row_end -= begin, range.row = 0;
    multiply_with_epilogue(multiply_, panels, logits_operand(block, begin), x, range,
                           [&](const float* logits, int64_t row, int rows, int64_t panel) {
                             exp_epilogue(logits, near, begin + row, rows, panels.start(panel), panels.width(panel), sum, largest);
                           });
  }

  void exp_epilogue(const float* logits, NearRows near, int64_t v, int rows, int64_t lane, int lanes, float* sum, float* largest) const {
    ExpTile t{.logits = logits,
              .rows = rows,
              .lanes = lanes,
              .reference = floats(layout_.reference) + lane,
              .sum = sum + lane,
              .largest = largest + lane,
              .e_f32 = nullptr,
              .e_bf16 = nullptr,
              .near_f32 = nullptr,
              .e_pairs = nullptr,
              .e_row = layout_.token_row,
              .near_row = layout_.turned ? lanes : layout_.token_row,
              .softcap = c_.softcap};
    if (pass_ != CrossEntropyPass::kForward) {
      const int64_t word = (v - near.begin) / elements_per_word(layout_.word);
      const int64_t at = layout_.turned ? lane * near.words(layout_.word) + word * lanes : word * layout_.token_row + lane;
      if (pairs_) {
        t.e_bf16 = reinterpret_cast<uint16_t*>(base_ + layout_.e) + v * layout_.token_row + lane;
        t.e_pairs = reinterpret_cast<uint32_t*>(base_ + layout_.e_near) + at;
      } else {
        t.e_f32 = floats(layout_.e) + v * layout_.token_row + lane;
        if (layout_.turned) t.near_f32 = floats(layout_.e_near) + at;
      }
    }
    exp_tile_(t);
  }

  // Rows [begin, end) of w in the form dX reads them (and, for a copy, the logits too), while they are near.
  void prepare_w(int64_t block, int64_t begin, int64_t end) const {
    if (layout_.copy_w) {
      for (int64_t v = begin; v < end; ++v) {
        float* row = floats(layout_.w_block) + (v - block) * layout_.embed_row;
        kernels_.scale[kind_of(c_.w.type)](row, w_row(v), 1.0f, c_.embed);
        std::fill(row + c_.embed, row + round_up(c_.embed, 16), 0.0f);
      }
    }
    if (pass_ == CrossEntropyPass::kForward) return;
    if (layout_.turned) {
      const RowOperand to = packed_rows(gemm_, layout_.word, base_ + layout_.w_panel, layout_.block_words);
      pack_into_rows(gemm_, layout_.word, c_.w.type == DType::kBF16, to, 0, (begin - block) / elements_per_word(layout_.word),
                     {.lanes = c_.embed, .depth = end - begin, .source = w_row(begin), .depth_stride = c_.w.row, .lane_stride = 1});
    } else if (pairs_) {
      const int64_t words = ceil_div(block_rows(block), 2), word = (begin - block) / 2;
      for (int64_t panel = 0; panel < embed_panels_.count(); ++panel) {
        const int64_t start = embed_panels_.start(panel);
        gemm_.pack_bf16({.panel = base_ + layout_.w_panel + (start * words + word * embed_panels_.width(panel)) * 4,
                         .width = embed_panels_.width(panel),
                         .lanes = embed_panels_.lanes(panel),
                         .depth = end - begin,
                         .source = w_row(begin) + start * 2,
                         .depth_stride = c_.w.row,
                         .lane_stride = 1});
      }
    }
  }

  RowOperand logits_operand(int64_t block, int64_t begin) const {
    if (layout_.copy_w) {
      return {.data = reinterpret_cast<const char*>(floats(layout_.w_block) + (begin - block) * layout_.embed_row),
              .row_bytes = layout_.embed_row * 4,
              .step_bytes = 4};
    }
    return {
        .data = w_row(begin), .row_bytes = c_.w.row * dtype_bytes(c_.w.type), .step_bytes = 4, .half_word = pairs_ && c_.embed % 2 != 0};
  }

  // dx_sum[:, token] (+)= sum over the near rows of w[v, :] * e[v, token], for some panels of tokens.
  void add_to_dx(const Panels& panels, int64_t block, NearRows near, int64_t panel, int64_t panel_end) const {
    RowOperand w = packed_rows(gemm_, layout_.word, base_ + layout_.w_panel, layout_.block_words);
    w.data = w.at(0, (near.begin - block) / elements_per_word(layout_.word));
    const LaneOperand e{.data = base_ + layout_.e_near, .words = near.words(layout_.word)};
    multiply_into(multiply_, gemm_.store_f32, panels, w, e, {0, c_.embed, panel, panel_end}, floats(layout_.dx_sum), layout_.token_row,
                  near.begin > 0);
  }

  // dx_sum[token, :] (+)= sum over the block of e[v, token] * w[v, :].
  void add_to_dx(int64_t block) {
    const int64_t rows = block_rows(block);
    RowOperand e{.data = pairs_ ? base_ + layout_.e_near : base_ + layout_.e + block * layout_.token_row * 4,
                 .row_bytes = 4,
                 .step_bytes = layout_.token_row * 4};
    LaneOperand w{.data = pairs_           ? base_ + layout_.w_panel
                          : layout_.copy_w ? base_ + layout_.w_block
                                           : w_row(block),
                  .words = pairs_ ? ceil_div(rows, 2) : rows};
    if (!pairs_) w.step_bytes = (layout_.copy_w ? layout_.embed_row : c_.w.row) * 4;
    const int64_t groups = ceil_div(embed_panels_.count(), kPanelGroup), token_tiles = ceil_div(tokens_, kTokenTile);
    pool_.run(groups * token_tiles, [&](int64_t tile, int) {
      const int64_t token = tile % token_tiles * kTokenTile, panel = tile / token_tiles * kPanelGroup;
      multiply_into(multiply_, gemm_.store_f32, embed_panels_, e, w,
                    {token, std::min(tokens_, token + kTokenTile), panel, std::min(embed_panels_.count(), panel + kPanelGroup)},
                    floats(layout_.dx_sum), layout_.embed_row, block > 0);
    });
  }

  // Adds up the partial sums in the order of the vocabulary. False if some token's exponents were too large: its reference is then its
  // maximum, and the chunk has to be done again.
  bool sums_are_safe() {
    float* reference = floats(layout_.reference);
    float* sum = floats(layout_.sum);
    float* largest = partial_max(0);
    std::copy_n(partial_sum(0), tokens_, sum);
    for (int64_t tile = 1; tile < layout_.vocab_tiles; ++tile) {
      const float* more = partial_sum(tile);
      const float* others = partial_max(tile);
      for (int64_t i = 0; i < tokens_; ++i) sum[i] += more[i];
      for (int64_t i = 0; i < tokens_; ++i) largest[i] = std::max(largest[i], others[i]);
    }
    bool safe = true;
    for (int64_t i = 0; i < tokens_; ++i) {
      if (largest[i] <= kLargestExponent || !std::isfinite(largest[i])) continue;
      reference[i] += largest[i];
      safe = false;
    }
    return safe;
  }

  void write_loss(float* lse, float* target_logit, float* nll) {
    const float* reference = floats(layout_.reference);
    const float* sum = floats(layout_.sum);
    for (int64_t i = 0; i < tokens_; ++i) {
      const int64_t token = first_ + i;
      const float target = mine(token) ? floats(layout_.target)[i] : 0.0f;
      const float log_sum = std::log(sum[i]);
      if (lse != nullptr) lse[token] = reference[i] + log_sum;
      if (target_logit != nullptr) target_logit[token] = target;
      if (nll != nullptr) nll[token] = ignored(token) ? 0.0f : (reference[i] - target) + log_sum;
    }
  }

  // Tokens [begin, end) of the transposed dX, as rows where x_scaled will lie.
  void turn_back(int64_t begin, int64_t end) const {
    for (int64_t column = 0; column < c_.embed; ++column) {
      const float* from = floats(layout_.dx_sum) + column * layout_.token_row;
      for (int64_t i = begin; i < end; ++i) floats(layout_.x_scaled)[i * layout_.embed_row + column] = from[i];
    }
  }

  // dX[token] = scale / sum * dx_sum - scale * slope * w[target]; x_scaled = scale / sum * x, as dW's lane operand.
  void finish_dx(const CrossEntropyGradients& g) {
    const float* sum = floats(layout_.sum);
    pool_.run(ceil_div(tokens_, 16), [&](int64_t group, int) {
      if (layout_.turned) turn_back(group * 16, std::min(tokens_, group * 16 + 16));
      for (int64_t i = group * 16; i < std::min(tokens_, group * 16 + 16); ++i) {
        const int64_t token = first_ + i;
        const float scale = g.scale[token];
        const float factor = pass_ == CrossEntropyPass::kWithGradients && scale != 0.0f ? scale / sum[i] : scale;
        void* dx = static_cast<char*>(g.dx.data) + token * g.dx.row * dtype_bytes(g.dx.type);
        float* x_scaled = floats(layout_.x_scaled) + i * layout_.embed_row;
        const float* dx_sum = layout_.turned ? x_scaled : floats(layout_.dx_sum) + i * layout_.embed_row;
        kernels_.combine[kind_of(g.dx.type)][kind_of(c_.w.type)](dx, dx_sum, factor, mine(token) ? target_row(token) : nullptr,
                                                                 target_scale(g, i), c_.embed);
        kernels_.scale[kind_of(c_.x.type)](x_scaled, x_row(token), factor, c_.embed);
        std::fill(x_scaled + c_.embed, x_scaled + round_up(c_.embed, 16), 0.0f);
      }
    });
    if (!layout_.pack_x) return;
    const int64_t words = ceil_div(tokens_, elements_per_word(layout_.word));
    pool_.run(embed_panels_.count(), [&](int64_t panel, int) {
      const int64_t start = embed_panels_.start(panel);
      pack_function(gemm_, false, layout_.word)({.panel = base_ + layout_.x_scaled_panel + start * words * 4,
                                                 .width = embed_panels_.width(panel),
                                                 .lanes = embed_panels_.lanes(panel),
                                                 .depth = tokens_,
                                                 .source = floats(layout_.x_scaled) + start,
                                                 .depth_stride = layout_.embed_row,
                                                 .lane_stride = 1});
    });
  }

  // dW[v, :] (+)= sum over the chunk of e[v, token] * x_scaled[token, :], less scale * slope * x for the tokens whose target is v.
  void add_to_dw(const CrossEntropyGradients& g, bool accumulate) {
    LaneOperand x{.data = base_ + (layout_.pack_x ? layout_.x_scaled_panel : layout_.x_scaled),
                  .words = ceil_div(tokens_, elements_per_word(layout_.word))};
    if (!layout_.pack_x) x.step_bytes = layout_.embed_row * 4;
    pool_.run(layout_.vocab_tiles, [&](int64_t tile, int) {
      const int64_t begin = tile * kVocabTile, end = std::min(c_.vocab, begin + kVocabTile);
      const int64_t element = pairs_ ? 2 : 4;
      const RowOperand e{.data = base_ + layout_.e + begin * layout_.token_row * element,
                         .row_bytes = layout_.token_row * element,
                         .step_bytes = 4,
                         .half_word = pairs_ && tokens_ % 2 != 0};
      for (int64_t panel = 0; panel < embed_panels_.count(); panel += kPanelGroup) {
        multiply_into(multiply_, gemm_.store_f32, embed_panels_, e, x,
                      {0, end - begin, panel, std::min(embed_panels_.count(), panel + kPanelGroup)}, g.dw + begin * g.dw_row, g.dw_row,
                      accumulate);
      }
      for (int64_t token = first_; token < first_ + tokens_; ++token) {
        const int64_t v = c_.targets[token] - c_.vocab_offset;
        if (!mine(token) || v < begin || v >= end) continue;
        kernels_.subtract[kind_of(c_.x.type)](g.dw + v * g.dw_row, x_row(token), target_scale(g, token - first_), c_.embed);
      }
    });
  }

  const CrossEntropy& c_;
  CrossEntropyPass pass_;
  const GemmKernels& gemm_;
  const CrossEntropyKernels& kernels_;
  void (*exp_tile_)(const ExpTile&);
  Layout layout_;
  char* base_;
  ThreadPool& pool_;
  Panels embed_panels_;
  Multiply multiply_;
  bool pairs_;
  int64_t first_ = 0, tokens_ = 0;
};

void check(const CrossEntropy& c) {
  for (const auto& [name, type] : {std::pair{"x", c.x.type}, std::pair{"w", c.w.type}}) {
    if (type != DType::kF32 && type != DType::kBF16) {
      throw UserError(concat_text("cross_entropy: ", name, " is ", dtype_name(type), "; the kernels take f32 and bf16"));
    }
  }
  MW_CHECK(c.tokens >= 0 && c.vocab > 0 && c.embed > 0 && c.chunk > 0 && c.softcap >= 0, "cross_entropy sizes");
}

}  // namespace

int64_t cross_entropy_workspace_bytes(const CrossEntropy& c, CrossEntropyPass pass, Isa isa) {
  check(c);
  return Layout(c, pass, isa).bytes;
}

void cross_entropy_forward(const CrossEntropy& c, const CrossEntropyForward& out, Isa isa, void* workspace, ThreadPool& pool) {
  check(c);
  Run(c, CrossEntropyPass::kForward, isa, workspace, pool).forward(out);
}

void cross_entropy_with_gradients(const CrossEntropy& c, const CrossEntropyGradients& g, Isa isa, void* workspace, ThreadPool& pool) {
  check(c);
  Run(c, CrossEntropyPass::kWithGradients, isa, workspace, pool).gradients(g);
}

void cross_entropy_gradients(const CrossEntropy& c, const CrossEntropyGradients& g, Isa isa, void* workspace, ThreadPool& pool) {
  check(c);
  Run(c, CrossEntropyPass::kGradients, isa, workspace, pool).gradients(g);
}

}  // namespace mw
