// Offsets in one arena by best fit over a list of free ranges.
#pragma once
#include <cstdint>
#include <map>

namespace mw {

class ArenaPlan {
 public:
  int64_t take(int64_t bytes);
  void give_back(int64_t offset, int64_t bytes);
  int64_t peak() const { return peak_; }

 private:
  std::map<int64_t, int64_t> free_;  // offset -> bytes, never touching
  int64_t end_ = 0;                  // everything from here on is free
  int64_t peak_ = 0;
};

}  // namespace mw
