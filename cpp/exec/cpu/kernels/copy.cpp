#include "exec/cpu/kernels/copy.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "exec/cpu/kernels/elementwise_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTileElements = 65536;
constexpr int64_t kSquare = 32;  // side of a transposed block

// The loops of a copy, outermost first; the last has the smallest destination stride.
struct Loops {
  int rank = 0;
  std::array<int64_t, kMaxCopyDims> sizes{}, source{}, destination{};

  explicit Loops(const CopyCall& call) {
    MW_CHECK(call.rank >= 0 && call.rank <= kMaxCopyDims, "copy with ", call.rank, " dims");
    // Stable insertion by falling destination stride.
    std::array<int, kMaxCopyDims> order{};
    int dims = 0;
    for (int dim = 0; dim < call.rank; ++dim) {
      if (call.sizes[dim] == 1) continue;
      int at = dims++;
      for (; at > 0 && call.destination_strides[order[at - 1]] < call.destination_strides[dim]; --at) order[at] = order[at - 1];
      order[at] = dim;
    }
    for (int i = 0; i < dims; ++i) {
      const int64_t size = call.sizes[order[i]], from = call.source_strides[order[i]], to = call.destination_strides[order[i]];
      if (rank > 0 && source[rank - 1] == from * size && destination[rank - 1] == to * size) {
        sizes[rank - 1] *= size;
      } else {
        sizes[rank++] = size;
      }
      source[rank - 1] = from, destination[rank - 1] = to;
    }
    if (rank == 0) push(1, 0, 1);
  }
  void push(int64_t size, int64_t from, int64_t to) { sizes[rank] = size, source[rank] = from, destination[rank++] = to; }
  void swap(int a, int b) {
    std::swap(sizes[a], sizes[b]);
    std::swap(source[a], source[b]);
    std::swap(destination[a], destination[b]);
  }
  int64_t count(int dims) const {
    int64_t product = 1;
    for (int dim = 0; dim < dims; ++dim) product *= sizes[dim];
    return product;
  }
  // Offsets of the flat index over the first `dims` loops.
  std::pair<int64_t, int64_t> offsets(int64_t flat, int dims) const {
    int64_t from = 0, to = 0;
    for (int dim = dims - 1; dim >= 0; --dim) {
      from += flat % sizes[dim] * source[dim];
      to += flat % sizes[dim] * destination[dim];
      flat /= sizes[dim];
    }
    return {from, to};
  }
};

// How elements of one dtype become those of another: through a block of 32-bit lanes.
struct Converter {
  ElementwiseKernels::LoadFunction load;
  ElementwiseKernels::StoreFunction store;
  ElementwiseKernels::BlockFunction convert = nullptr;  // between f32 and i32 lanes

  Converter(Isa isa, DType from, DType to) {
    const ElementwiseKernels& kernels = elementwise_kernels(isa);
    load = kernels.load[static_cast<int>(from)];
    store = kernels.store[static_cast<int>(to)];
    MW_CHECK(load != nullptr && store != nullptr, "no copy from ", dtype_name(from), " to ", dtype_name(to));
    if (is_float(from) && !is_float(to)) convert = kernels.ops[static_cast<int>(ElementwiseOp::kToI32)];
    if (!is_float(from) && is_float(to)) convert = kernels.ops[static_cast<int>(ElementwiseOp::kToF32)];
  }
  // count elements to a dense destination
  void run(const char* from, int64_t stride, int64_t from_bytes, char* to, int64_t to_bytes, int64_t count) const {
    alignas(64) int32_t lanes[kBlock + kBlockSlack];
    for (int64_t done = 0; done < count; done += kBlock) {
      const int64_t some = std::min(kBlock, count - done);
      load(lanes, from + done * stride * from_bytes, stride, some);
      if (convert != nullptr) convert(lanes, lanes, nullptr, nullptr, some);
      store(to + done * to_bytes, lanes, some);
    }
  }
};

// Same dtype: elements as plain words of its size.
template <typename Word>
void copy_words(const char* from, int64_t from_stride, char* to, int64_t to_stride, int64_t count) {
  const Word* const source = reinterpret_cast<const Word*>(from);
  Word* const destination = reinterpret_cast<Word*>(to);
  if (from_stride == 1 && to_stride == 1) {
    std::memcpy(to, from, count * sizeof(Word));
  } else if (from_stride == 0 && to_stride == 1) {
    std::fill(destination, destination + count, *source);
  } else {
    for (int64_t i = 0; i < count; ++i) destination[i * to_stride] = source[i * from_stride];
  }
}
// destination[i * to_row + j] = source[j * from_row + i] in blocks that stay in L1.
template <typename Word>
void transpose_words(const char* from, int64_t from_row, char* to, int64_t to_row, int64_t rows, int64_t columns) {
  const Word* const source = reinterpret_cast<const Word*>(from);
  Word* const destination = reinterpret_cast<Word*>(to);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) destination[i * to_row + j] = source[j * from_row + i];
  }
}

using CopyFunction = void (*)(const char*, int64_t, char*, int64_t, int64_t);
using TransposeFunction = void (*)(const char*, int64_t, char*, int64_t, int64_t, int64_t);
CopyFunction copy_function(int64_t bytes) {
  return bytes == 1 ? copy_words<uint8_t> : bytes == 2 ? copy_words<uint16_t> : bytes == 4 ? copy_words<uint32_t> : copy_words<uint64_t>;
}
TransposeFunction transpose_function(int64_t bytes) {
  return bytes == 1   ? transpose_words<uint8_t>
         : bytes == 2 ? transpose_words<uint16_t>
         : bytes == 4 ? transpose_words<uint32_t>
                      : transpose_words<uint64_t>;
}

// The innermost destination dim is not the source's: blocks of kSquare x kSquare over the two.
void copy_transposed(ThreadPool& pool, const CopyCall& call, const Loops& loops) {
  const int columns = loops.rank - 1, rows = loops.rank - 2;  // destination contiguous; source contiguous
  const int64_t bytes = dtype_bytes(call.source_dtype);
  const auto transpose = transpose_function(bytes);
  const int64_t column_blocks = (loops.sizes[columns] + kSquare - 1) / kSquare;
  const int64_t strip_rows = kSquare;
  const int64_t strips = (loops.sizes[rows] + strip_rows - 1) / strip_rows;
  const int64_t all = loops.count(rows) * strips, per_tile = std::max<int64_t>(1, kTileElements / (strip_rows * loops.sizes[columns]));
  pool.run((all + per_tile - 1) / per_tile, [&](int64_t tile, int) {
    for (int64_t strip = tile * per_tile; strip < std::min(all, (tile + 1) * per_tile); ++strip) {
      const auto [from, to] = loops.offsets(strip / strips, rows);
      const int64_t row = strip % strips * strip_rows, num_rows = std::min(strip_rows, loops.sizes[rows] - row);
      for (int64_t block = 0; block < column_blocks; ++block) {
        const int64_t column = block * kSquare, num_columns = std::min(kSquare, loops.sizes[columns] - column);
        transpose(static_cast<const char*>(call.source) + (from + row + column * loops.source[columns]) * bytes, loops.source[columns],
                  static_cast<char*>(call.destination) + (to + row * loops.destination[rows] + column) * bytes, loops.destination[rows],
                  num_rows, num_columns);
      }
    }
  });
}

// Line by line along the innermost loop.
void copy_lines(ThreadPool& pool, Isa isa, const CopyCall& call, const Loops& loops) {
  const int inner = loops.rank - 1;
  const int64_t from_bytes = dtype_bytes(call.source_dtype), to_bytes = dtype_bytes(call.destination_dtype);
  const bool same = call.source_dtype == call.destination_dtype;
  const int64_t size = loops.sizes[inner], from_stride = loops.source[inner], to_stride = loops.destination[inner];
  // A long line is cut, short ones are put together.
  const int64_t pieces = std::max<int64_t>(1, size / kTileElements), piece = (size + pieces - 1) / pieces;
  const int64_t lines_per_tile = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, size)), lines = loops.count(inner);
  const auto copy = copy_function(from_bytes);
  pool.run((lines + lines_per_tile - 1) / lines_per_tile * pieces, [&](int64_t tile, int) {
    const int64_t first = tile / pieces * lines_per_tile, begin = tile % pieces * piece, count = std::min(piece, size - begin);
    for (int64_t line = first; line < std::min(lines, first + lines_per_tile); ++line) {
      const auto [from, to] = loops.offsets(line, inner);
      const char* const source = static_cast<const char*>(call.source) + (from + begin * from_stride) * from_bytes;
      char* const destination = static_cast<char*>(call.destination) + (to + begin * to_stride) * to_bytes;
      if (same) {
        copy(source, from_stride, destination, to_stride, count);
      } else if (to_stride == 1) {
        Converter(isa, call.source_dtype, call.destination_dtype).run(source, from_stride, from_bytes, destination, to_bytes, count);
      } else {
        const Converter converter(isa, call.source_dtype, call.destination_dtype);
        for (int64_t i = 0; i < count; ++i) {
          converter.run(source + i * from_stride * from_bytes, 1, from_bytes, destination + i * to_stride * to_bytes, to_bytes, 1);
        }
      }
    }
  });
}

}  // namespace

void strided_copy(ThreadPool& pool, Isa isa, const CopyCall& call) {
  Loops loops(call);
  if (call.source_dtype != call.destination_dtype) Converter(isa, call.source_dtype, call.destination_dtype);  // checks the pair
  if (loops.count(loops.rank) == 0) return;
  const int inner = loops.rank - 1;
  if (call.source_dtype == call.destination_dtype && loops.destination[inner] == 1 && loops.source[inner] != 1) {
    for (int dim = 0; dim < inner; ++dim) {
      if (loops.source[dim] != 1) continue;
      loops.swap(dim, inner - 1);
      copy_transposed(pool, call, loops);
      return;
    }
  }
  copy_lines(pool, isa, call, loops);
}

void copy_bytes(ThreadPool& pool, Isa isa, const void* source, void* destination, int64_t bytes) {
  strided_copy(pool, isa, {source, DType::kU8, destination, DType::kU8, {bytes}, {1}, {1}, 1});
}

void fill(ThreadPool& pool, Isa isa, DType dtype, void* destination, int64_t count, double value) {
  alignas(8) char element[8];
  store_element(dtype, element, 0, value);
  strided_copy(pool, isa, {element, dtype, destination, dtype, {count}, {0}, {1}, 1});
}

void iota(ThreadPool& pool, int32_t* y, int64_t outer, int64_t n, int64_t inner) {
  const int64_t lines = outer * n, per_tile = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, inner));
  pool.run((lines + per_tile - 1) / per_tile, [&](int64_t tile, int) {
    for (int64_t line = tile * per_tile; line < std::min(lines, (tile + 1) * per_tile); ++line) {
      std::fill(y + line * inner, y + (line + 1) * inner, static_cast<int32_t>(line % n));
    }
  });
}

}  // namespace mw
