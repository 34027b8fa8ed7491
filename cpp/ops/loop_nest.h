// Loops over named dims for the reference implementations: visits every index of `dims` and keeps the flat offset of each array
// that takes part. An array that lacks a dim is read at the same place all along it.
//
//   LoopNest nest(result.type.dims, {&a.type, &b.type});
//   nest.run([&](int64_t i, const int64_t* at) { result.data[i] = a.data[at[0]] + b.data[at[1]]; });
#pragma once
#include <cstdint>
#include <vector>

#include "ir/type.h"

namespace mw {

class LoopNest {
 public:
  LoopNest(const std::vector<Dim>& dims, const std::vector<const Type*>& arrays) : dims_(dims), arrays_(arrays.size()) {
    for (const Dim& dim : dims) total_ *= dim.size;
    strides_.resize(dims.size() * arrays_);
    for (size_t a = 0; a < arrays_; ++a) {
      const std::vector<int64_t> steps = arrays[a]->strides();
      for (size_t d = 0; d < dims.size(); ++d) {
        const int index = arrays[a]->index_of(dims[d].name);
        strides_[d * arrays_ + a] = index < 0 ? 0 : steps[static_cast<size_t>(index)];
      }
    }
  }

  // body(flat index over the nest's own dims, offset into each array)
  template <typename Body>
  void run(Body&& body) const {
    std::vector<int64_t> index(dims_.size(), 0), at(arrays_, 0);
    for (int64_t i = 0; i < total_; ++i) {
      body(i, at.data());
      for (size_t d = dims_.size(); d-- > 0;) {
        for (size_t a = 0; a < arrays_; ++a) at[a] += strides_[d * arrays_ + a];
        if (++index[d] < dims_[d].size) break;
        for (size_t a = 0; a < arrays_; ++a) at[a] -= strides_[d * arrays_ + a] * dims_[d].size;
        index[d] = 0;
      }
    }
  }

 private:
  std::vector<Dim> dims_;
  size_t arrays_;
  std::vector<int64_t> strides_;
  int64_t total_ = 1;
};

}  // namespace mw
