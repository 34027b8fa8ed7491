#include "exec/cpu/expert_exchange_kernels.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace mw::cpu {
namespace {

constexpr int64_t kAlignment = 64;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct Exchange {
  int64_t experts, parts, own;  // own: experts of this rank

  explicit Exchange(const Signature& s) : experts(s.attributes->integer("experts")), parts(s.attributes->integer("parts")) {
    own = experts / parts;
  }
  const int32_t* received(const int32_t* counts) const { return counts + experts; }
  int64_t rows_to(const int32_t* counts, int64_t part) const {
    int64_t rows = 0;
    for (int64_t e = part * own; e < (part + 1) * own; ++e) rows += std::max(0, counts[e]);
    return rows;
  }
  int64_t rows_from(const int32_t* counts, int64_t part) const {
    int64_t rows = 0;
    for (int64_t e = 0; e < own; ++e) rows += received(counts)[part * own + e];
    return rows;
  }
};

int64_t row_bytes(const Type& rows) {
  int64_t bytes = dtype_bytes(rows.dtype);
  for (size_t i = 1; i < rows.dims.size(); ++i) bytes *= rows.dims[i].size;
  return bytes;
}

// Of the rows that dispatch gives and return takes: those of one arrangement, by part.
const Type& worked_on(const OpDef& def, const Signature& s) { return def.name == "expert_dispatch" ? s.result(0) : s.operand(0); }

// Behind the rows by part: what goes to and comes from each part, where each block begins by part and by expert.
struct Tables {
  int64_t *sent, *received, *by_part, *by_expert;

  static int64_t bytes(const Exchange& x) { return 8 * (2 * x.parts + 2 * x.experts); }
  Tables(const Exchange& x, std::byte* at, const int32_t* counts, int64_t bytes_per_row) : sent(reinterpret_cast<int64_t*>(at)) {
    received = sent + x.parts;
    by_part = received + x.parts;
    by_expert = by_part + x.experts;
    for (int64_t p = 0; p < x.parts; ++p) {
      sent[p] = x.rows_to(counts, p) * bytes_per_row;
      received[p] = x.rows_from(counts, p) * bytes_per_row;
    }
    const int32_t* blocks = x.received(counts);
    int64_t row = 0;
    for (int64_t b = 0; b < x.experts; ++b) {
      by_part[b] = row;
      row += blocks[b];
    }
    row = 0;
    for (int64_t e = 0; e < x.own; ++e) {
      for (int64_t p = 0; p < x.parts; ++p) {
        by_expert[p * x.own + e] = row;
        row += blocks[p * x.own + e];
      }
    }
    rows = row;
  }
  int64_t rows;  // received by this rank
};

void copy_blocks(const Exchange& x, const KernelRun& r, const int32_t* counts, const int64_t* from_rows, const std::byte* from,
                 const int64_t* to_rows, std::byte* to, int64_t bytes) {
  const int32_t* blocks = x.received(counts);
  r.pool.run(x.experts, [&](int64_t b, int) {
    if (blocks[b] > 0) std::memcpy(to + to_rows[b] * bytes, from + from_rows[b] * bytes, static_cast<size_t>(blocks[b] * bytes));
  });
}

Kernel make_counts(const Signature& s, Group group, Communicator& comm, ExpertLoad& load) {
  const Exchange x(s);
  const int64_t rows = s.operand(0).elements(), bound = s.attributes->integer("rows");
  MW_CHECK(s.result(0).elements() == 2 * x.experts, "counts of ", x.experts, " experts are ", to_string(s.result(0)));
  return {.workspace_bytes = 4 * x.experts * x.parts,
          .run =
              [=, &comm, &load](const KernelRun& r) {
                const auto* experts = reinterpret_cast<const int32_t*>(r.operands[0]);
                auto *sent = reinterpret_cast<int32_t*>(r.results[0]), *received = sent + x.experts;
                auto* all = reinterpret_cast<int32_t*>(r.workspace);  // [parts][experts]
                std::fill(sent, sent + x.experts, 0);
                for (int64_t row = 0; row < rows; ++row) ++sent[experts[row]];
                comm.all_gather(group, sent, all, 4 * x.experts);
                int64_t most = 0;
                for (int64_t p = 0; p < x.parts; ++p) {
                  int64_t of_part = 0;
                  for (int64_t from = 0; from < x.parts; ++from) of_part += x.rows_to(all + from * x.experts, p);
                  most = std::max(most, of_part);
                }
                load.most = std::max(load.most, static_cast<double>(most) / static_cast<double>(std::max<int64_t>(1, rows)));
                const bool fits = most <= bound;
                if (!fits) load.too_many = true;
                for (int64_t p = 0; p < x.parts; ++p) {
                  for (int64_t e = 0; e < x.own; ++e) received[p * x.own + e] = fits ? all[p * x.experts + group.index * x.own + e] : 0;
                }
                for (int64_t e = 0; e < x.experts && !fits; ++e) sent[e] = -1 - sent[e];
              },
          .choice = "all_gather"};
}

Kernel make_dispatch(const OpDef& def, const Signature& s, Group group, Communicator& comm) {
  const Exchange x(s);
  const Type rows = worked_on(def, s);
  const int64_t bytes = row_bytes(rows), tables_at = aligned(rows.bytes()), total = rows.bytes();
  return {.workspace_bytes = tables_at + Tables::bytes(x),
          .run =
              [=, &comm](const KernelRun& r) {
                const auto* counts = reinterpret_cast<const int32_t*>(r.operands[1]);
                const Tables t(x, r.workspace + tables_at, counts, bytes);
                comm.all_to_all_v(group, r.operands[0], t.sent, r.workspace, t.received);
                copy_blocks(x, r, counts, t.by_part, r.workspace, t.by_expert, r.results[0], bytes);
                std::memset(r.results[0] + t.rows * bytes, 0, static_cast<size_t>(total - t.rows * bytes));
              },
          .choice = "all_to_all"};
}

Kernel make_return(const OpDef& def, const Signature& s, Group group, Communicator& comm) {
  const Exchange x(s);
  const int64_t bytes = row_bytes(worked_on(def, s)), tables_at = aligned(worked_on(def, s).bytes()), total = s.result(0).bytes();
  return {.workspace_bytes = tables_at + Tables::bytes(x),
          .run =
              [=, &comm](const KernelRun& r) {
                const auto* counts = reinterpret_cast<const int32_t*>(r.operands[1]);
                const Tables t(x, r.workspace + tables_at, counts, bytes);
                copy_blocks(x, r, counts, t.by_expert, r.operands[0], t.by_part, r.workspace, bytes);
                int64_t back = 0;
                for (int64_t p = 0; p < x.parts; ++p) back += t.sent[p];
                comm.all_to_all_v(group, r.workspace, t.received, r.results[0], t.sent);
                std::memset(r.results[0] + back, 0, static_cast<size_t>(total - back));  // nothing came back: there was no room
              },
          .choice = "all_to_all"};
}

Kernel make_experts(const Signature& s) {
  const Exchange x(s);
  const int64_t rows = s.result(0).elements();
  return {.workspace_bytes = 0,
          .run =
              [=](const KernelRun& r) {
                const int32_t* blocks = x.received(reinterpret_cast<const int32_t*>(r.operands[0]));
                auto *y = reinterpret_cast<int32_t*>(r.results[0]), *const end = y + rows;
                for (int64_t e = 0; e < x.own; ++e) {
                  for (int64_t p = 0; p < x.parts; ++p) y = std::fill_n(y, blocks[p * x.own + e], static_cast<int32_t>(e));
                }
                std::fill(y, end, static_cast<int32_t>(x.own));
              },
          .choice = "experts of rows"};
}

}  // namespace

bool is_expert_exchange(const OpDef& def) {
  return def.name == "expert_counts" || def.name == "expert_dispatch" || def.name == "expert_return" || def.name == "dispatched_experts";
}

int64_t expert_exchange_workspace_bytes(const OpDef& def, const Signature& signature) {
  const Exchange x(signature);
  if (def.name == "expert_counts") return 4 * x.experts * x.parts;
  if (def.name == "dispatched_experts") return 0;
  return aligned(worked_on(def, signature).bytes()) + Tables::bytes(x);
}

Kernel make_expert_exchange(const OpDef& def, const Signature& signature, Group group, Communicator& communicator, ExpertLoad& load) {
  if (def.name == "expert_counts") return make_counts(signature, std::move(group), communicator, load);
  if (def.name == "expert_dispatch") return make_dispatch(def, signature, std::move(group), communicator);
  if (def.name == "expert_return") return make_return(def, signature, std::move(group), communicator);
  return make_experts(signature);
}

}  // namespace mw::cpu
