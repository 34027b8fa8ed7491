// The mesh: named axes over which ranks are laid out, the last one over neighbouring ranks.
//
//   Mesh mesh({{"data", 2}, {"tensor", 4}});   // 8 ranks; rank 5 has data 1, tensor 1
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mw {

class Mesh {
 public:
  Mesh() : Mesh(std::vector<std::pair<std::string, int64_t>>{}) {}
  // Axes that are not named have size 1. UserError for an unknown axis or a size below 1.
  explicit Mesh(const std::vector<std::pair<std::string, int64_t>>& sizes);

  static const std::vector<std::string>& axis_names();  // outermost first

  int64_t size() const;  // number of ranks
  int64_t size_of(std::string_view axis) const;
  int64_t coordinate(int64_t rank, std::string_view axis) const;
  // Position of a rank within the part (stride, size) of an axis.
  int64_t index_in(int64_t rank, std::string_view axis, int64_t stride, int64_t size) const {
    return coordinate(rank, axis) / stride % size;
  }
  std::string to_string() const;  // "data=2 tensor=4", "one rank"

 private:
  std::vector<int64_t> sizes_;  // in the order of axis_names()
};

// Whether the shards of a dim over an axis are dealt in zigzag order: the dim is cut into two blocks for each of n ranks, and rank i holds
// block i and, behind it, block 2n - 1 - i. So it is for the sequence over `context`: under a causal mask all ranks then have as many
// pairs of query and key (Grattafiori et al. 2024, section 3.3.2).
bool is_zigzag(std::string_view dim, std::string_view axis);

}  // namespace mw
