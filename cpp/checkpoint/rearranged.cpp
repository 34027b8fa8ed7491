#include "checkpoint/rearranged.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

constexpr int64_t kTile = 256;     // elements of a run that is scattered; a multiple of every block of quantised formats
constexpr int64_t kRun = 1 << 14;  // elements of a run that is not

// Calls fn() for every index of the dims [first, last) inside the slice, in row-major order; `index` holds it.
template <typename Fn>
void for_each_index(const Slice& slice, size_t first, size_t last, Shape& index, Fn&& fn) {
  for (size_t d = first; d < last; ++d) index[d] = slice.begin[d];
  while (true) {
    fn();
    size_t d = last;
    while (d > first && ++index[d - 1] == slice.end[d - 1]) {
      index[d - 1] = slice.begin[d - 1];
      --d;
    }
    if (d == first) return;
  }
}

class Reader {
 public:
  Reader(const Rearranged& tensor, const Slice& slice, DType as, void* to, const DecodeRun& decode)
      : tensor_(tensor), slice_(slice), as_(as), to_(static_cast<std::byte*>(to)), decode_(decode), index_(tensor.shape.size()) {
    out_strides_.resize(tensor.shape.size());
    for (size_t d = tensor.shape.size(), stride = 1; d-- > 0;) {
      out_strides_[d] = static_cast<int64_t>(stride);
      stride *= static_cast<size_t>(slice.end[d] - slice.begin[d]);
    }
  }

  void read_part(size_t part) {
    const Shape& strides = tensor_.parts[part].strides;
    const size_t fast = fast_dim(strides);
    const int64_t begin = slice_.begin[fast], end = slice_.end[fast];
    const int64_t longest = out_strides_[fast] == 1 ? kRun : kTile;
    for_each_index(slice_, 0, fast, index_, [&] {
      for (int64_t i = begin; i < end;) {
        index_[fast] = i;
        const int64_t count = run_length(part, fast, std::min(end, (i / longest + 1) * longest));
        if (count == 0) {
          ++i;
          continue;
        }
        for_each_index(slice_, fast + 1, index_.size(), index_, [&] { read_run(part, fast, count); });
        i += count;
      }
    });
  }

 private:
  // The dim along which the part's elements are neighbours.
  size_t fast_dim(const Shape& strides) const {
    for (size_t d = strides.size(); d-- > 0;) {
      if (d != tensor_.split_dim && strides[d] == 1) return d;
    }
    return tensor_.place || strides[tensor_.split_dim] == 1 ? tensor_.split_dim : strides.size() - 1;
  }

  Place place_of(size_t dim, int64_t i, size_t part) const {
    if (tensor_.place && dim == tensor_.split_dim) return tensor_.place(i);
    return {part, i * tensor_.parts[part].strides[dim]};
  }

  // Elements from index_[fast] on, up to `end`, that are neighbours in the part; 0 when the first is in another part.
  int64_t run_length(size_t part, size_t fast, int64_t end) const {
    const int64_t begin = index_[fast];
    if (!tensor_.place || fast != tensor_.split_dim) return tensor_.parts[part].strides[fast] == 1 ? end - begin : 1;
    const Place first = tensor_.place(begin);
    if (first.part != part) return 0;
    int64_t i = begin + 1;
    for (; i < end; ++i) {
      const Place next = tensor_.place(i);
      if (next.part != part || next.offset != first.offset + (i - begin)) break;
    }
    return i - begin;
  }

  void read_run(size_t part, size_t fast, int64_t count) {
    int64_t from = tensor_.parts[part].base, to = 0;
    for (size_t d = 0; d < index_.size(); ++d) {
      const Place place = place_of(d, index_[d], part);
      if (place.part != part) return;
      from += place.offset;
      to += (index_[d] - slice_.begin[d]) * out_strides_[d];
    }
    decode_(part, from, count, values_.data());
    if (tensor_.added != 0) {
      for (int64_t i = 0; i < count; ++i) values_[static_cast<size_t>(i)] += tensor_.added;
    }
    const int64_t bytes = dtype_bytes(as_);
    std::byte* out = to_ + to * bytes;
    if (out_strides_[fast] == 1) return copy_elements(DType::kF32, values_.data(), as_, out, count);
    copy_elements(DType::kF32, values_.data(), as_, converted_.data(), count);
    const int64_t stride = out_strides_[fast] * bytes;
    switch (bytes) {
      case 2:
        return scatter<2>(out, stride, count);
      case 4:
        return scatter<4>(out, stride, count);
      default:
        return scatter<8>(out, stride, count);
    }
  }

  template <size_t kBytes>
  void scatter(std::byte* out, int64_t stride, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) std::memcpy(out + i * stride, converted_.data() + static_cast<size_t>(i) * kBytes, kBytes);
  }

  const Rearranged& tensor_;
  const Slice& slice_;
  const DType as_;
  std::byte* const to_;
  const DecodeRun& decode_;
  Shape index_, out_strides_;
  std::vector<float> values_ = std::vector<float>(static_cast<size_t>(kRun));
  std::array<std::byte, kTile * 8> converted_;
};

}  // namespace

Rearranged as_stored(const Shape& shape) {
  Rearranged tensor{.shape = shape, .parts = {RearrangedPart{.base = 0, .strides = Shape(shape.size(), 1)}}};
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return tensor;  // its other dims may be beyond any product
  for (size_t d = shape.size(); d-- > 1;) tensor.parts[0].strides[d - 1] = tensor.parts[0].strides[d] * shape[d];
  return tensor;
}

void read_rearranged(std::string_view name, const Rearranged& tensor, const Slice& slice, DType as, void* to, const DecodeRun& decode) {
  check_slice(name, tensor.shape, slice);
  if (!is_float(as)) throw UserError("tensor " + in_quotes(name) + " holds floats and cannot be read as " + std::string(dtype_name(as)));
  if (num_elements(slice) == 0) return;
  if (tensor.shape.empty()) {
    float value;
    decode(0, tensor.parts[0].base, 1, &value);
    value += tensor.added;
    return copy_elements(DType::kF32, &value, as, to, 1);
  }
  Reader reader(tensor, slice, as, to, decode);
  for (size_t part = 0; part < tensor.parts.size(); ++part) reader.read_part(part);
}

}  // namespace mw
