// A collective of an MPI rank, under way: a list of stages, of which each is looked at until it is over.
#pragma once
#include <array>
#include <cstddef>
#include <functional>
#include <vector>

#include "comm/mpi_rank.h"

namespace mw {

class MpiRank::Moving : public Transfer {
 public:
  Moving(MpiRank& rank, const Group& group);
  ~Moving() override;
  Moving(const Moving&) = delete;
  Moving& operator=(const Moving&) = delete;

  // One of these, once.
  void all_gather(const void* in, void* out, int64_t bytes);
  void reduce_scatter(DType dtype, const void* in, void* out, int64_t count);
  void all_reduce(DType dtype, ReduceKind kind, const void* in, void* out, int64_t count);
  void shift(int64_t steps, const void* in, void* out, int64_t bytes);

  // As far as messages that are here allow.
  void advance();
  void finish() override;

 private:
  // Where block j of an array lies, in elements.
  struct Blocks {
    std::vector<int64_t> start, count;
  };
  // A sum that is formed piece by piece.
  struct Sum {
    DType dtype;
    ReduceKind kind;
    const std::byte* in;
    std::byte* out;
    Blocks blocks;
    int64_t piece = 0, pieces = 0, next = 0;  // elements of one; how many; which is added next
  };

  void take_memory(int64_t bytes);
  bool is_over() const { return stage_ == stages_.size(); }
  // Stages that everyone's block goes to `out`; that block `group.index` of the sum goes to `out`.
  void then_gather(const void* in, void* out, std::vector<int64_t> start, std::vector<int64_t> bytes);
  void then_reduce(DType dtype, ReduceKind kind, const void* in, const Blocks& blocks, void* out);
  void start_piece(int64_t number);
  bool add_pieces();
  std::byte* slot(int64_t member, int64_t number);
  int64_t piece_length(int64_t member, int64_t number) const;

  MpiRank& rank_;
  const Group group_;
  MpiLibrary::Comm comm_ = nullptr;
  int tag_ = 0;
  std::vector<std::function<bool()>> stages_;
  size_t stage_ = 0;
  std::array<Requests, 2> requests_;
  Sum sum_{};
  std::vector<std::byte> received_;
};

}  // namespace mw
