#include "ir/plan.h"

#include "base/xxhash64.h"

namespace mw {
namespace {

void add(Xxhash64& hash, const std::string& text) {
  hash.update(std::as_bytes(std::span(text)));
  hash.update(std::as_bytes(std::span("\n", 1)));
}

void add(Xxhash64& hash, const std::vector<Buffer>& buffers) {
  for (const Buffer& buffer : buffers) {
    add(hash, buffer.name + " " + to_string(buffer.type) + " of " + to_string(buffer.global_type) + " " + to_string(buffer.layout) +
                  " at " + std::to_string(buffer.offset) + " x " + std::to_string(buffer.copies));
  }
}

}  // namespace

uint64_t plan_hash(const Plan& plan) {
  Xxhash64 hash;
  for (const Piece& piece : plan.pieces) {
    add(hash, piece.name + " " + piece.variant);
    add(hash, piece.program.to_text());
    add(hash, std::to_string(piece.scratch_bytes));
    for (const int32_t finish : piece.finish) add(hash, std::to_string(finish));
  }
  for (const RunRow& row : plan.order) {
    add(hash, std::to_string(row.piece) + " " + std::to_string(row.microbatch));
  }
  for (const std::vector<Buffer>* buffers : {&plan.kept, &plan.carried, &plan.host, &plan.results}) add(hash, *buffers);
  return hash.digest();
}

uint64_t plan_hash(std::span<const Plan> stages) {
  uint64_t hash = 0;
  for (const Plan& plan : stages) hash = hash * 0x9E3779B97F4A7C15u + plan_hash(plan);  // of one stage: its own
  return hash;
}

}  // namespace mw
