#include "exec/cpu/kernels/copy.h"

#include "arrays.h"
#include "base/error.h"
#include "exec_cpu/op_kernel_run.h"

namespace mw {
namespace {

using namespace testing;

// Every dtype pair over permuted, sliced and broadcast arrays against element-by-element access.
struct Case {
  std::vector<int64_t> sizes, from, to;
};
const Case kCases[] = {
    {{1}, {1}, {1}},
    {{}, {}, {}},
    {{1000}, {1}, {1}},
    {{70000}, {1}, {1}},
    {{5, 33}, {33, 1}, {1, 5}},  // transposed
    {{300, 70}, {70, 1}, {1, 300}},
    {{4, 50, 60}, {3000, 60, 1}, {60, 240, 1}},  // middle dims swapped
    {{3, 40, 5, 16}, {3200, 80, 16, 1}, {3200, 16, 640, 1}},
    {{2, 3, 4, 5, 6, 7}, {2520, 840, 210, 42, 7, 1}, {1, 2, 6, 24, 120, 720}},
    {{6, 35}, {40, 1}, {35, 1}},  // slice of rows 40 wide
    {{6, 35}, {35, 1}, {90, 1}},  // into a wider array
    {{6, 35}, {0, 1}, {35, 1}},   // broadcast
    {{6, 35}, {1, 0}, {35, 1}},
    {{0, 35}, {35, 1}, {35, 1}},
    {{8, 3}, {3, 1}, {9, 3}},  // every third element
    {{7, 64, 40}, {1, 7, 448}, {2560, 40, 1}},
};

int64_t extent(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return last + 1;
}

void check(const Case& c, DType from, DType to) {
  const Array x = random_array(from, extent(c.sizes, c.from), 1, 5.0);
  const Array before = random_array(to, extent(c.sizes, c.to), 2);
  Array expected = before.copy();
  int64_t count = 1;
  for (int64_t size : c.sizes) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, a = 0, b = 0;
    for (int dim = static_cast<int>(c.sizes.size()) - 1; dim >= 0; --dim) {
      a += rest % c.sizes[dim] * c.from[dim], b += rest % c.sizes[dim] * c.to[dim];
      rest /= c.sizes[dim];
    }
    expected.set(b, is_float(to) ? x[a] : std::trunc(x[a]));
  }
  CopyCall call{.source = x.data(),
                .source_dtype = from,
                .destination = nullptr,
                .destination_dtype = to,
                .sizes = {},
                .source_strides = {},
                .destination_strides = {},
                .rank = static_cast<int>(c.sizes.size())};
  std::copy(c.sizes.begin(), c.sizes.end(), call.sizes.begin());
  std::copy(c.from.begin(), c.from.end(), call.source_strides.begin());
  std::copy(c.to.begin(), c.to.end(), call.destination_strides.begin());
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array y = before.copy();
    call.destination = y.data();
    strided_copy(pool, isa, call);
    if (!y.same_bits(expected))
      fail(__FILE__, __LINE__,
           "copy of case " + std::to_string(&c - kCases) + " from " + std::string(dtype_name(from)) + " to " + std::string(dtype_name(to)));
  });
}

TEST(copy, same_dtype) {
  for (const Case& c : kCases) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI32, DType::kU8}) check(c, dtype, dtype);
  }
}

TEST(copy, between_dtypes) {
  for (const Case& c : kCases) {
    for (DType from : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kU8}) {
      for (DType to : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kU8}) {
        if (!(is_float(from) && to == DType::kU8)) check(c, from, to);  // negative values
      }
    }
  }
}

TEST(copy, bits_survive) {
  Array x(DType::kBF16, 1000), y(DType::kBF16, 1000);
  for (int i = 0; i < 1000; ++i) x.halves()[i] = static_cast<uint16_t>(0x7f80 + i);  // infinities and NaNs with payloads
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    strided_copy(pool, isa, {x.data(), DType::kBF16, y.data(), DType::kBF16, {1000}, {1}, {1}, 1});
    EXPECT(y.same_bits(x));
  });
}

TEST(copy, fill_and_iota) {
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array y(DType::kBF16, 100003), i(DType::kI32, 3 * 50 * 7);
    fill(pool, isa, DType::kBF16, y.data(), y.size(), 1.5);
    for (int64_t k = 0; k < y.size(); ++k) EXPECT_EQ(y[k], 1.5);
    iota(pool, i.ints(), 3, 50, 7);
    for (int64_t k = 0; k < i.size(); ++k) EXPECT_EQ(i[k], k / 7 % 50);
  });
}

TEST(copy, more_dims_than_the_loops_hold_are_an_internal_error) {
  Array x(DType::kF32, 1), y(DType::kF32, 1);
  ThreadPool pool(1);
  CopyCall call{x.data(), DType::kF32, y.data(), DType::kF32, {}, {}, {}, 9};
  EXPECT_ERROR(InternalError, { strided_copy(pool, Isa::kAvx2, call); }, "copy with 9 dims");
}

// Reversed, no two dims lie one behind the other; kept in their order, all do.
TEST(copy, an_op_over_more_separate_dims_than_the_kernel_takes_is_refused) {
  ThreadPool pool(1);
  for (const int rank : {8, 9, 12}) {
    HostArray x{Type{DType::kF32, {}}, {}};
    std::vector<std::string> reversed;
    for (int i = 0; i < rank; ++i) {
      x.type.dims.push_back({"d" + std::to_string(i), i == 0 ? 3 : 2});
      reversed.insert(reversed.begin(), x.type.dims.back().name);
    }
    for (int64_t i = 0; i < x.type.elements(); ++i) x.data.push_back(static_cast<double>(i));
    const OpRun turned{.op = "reorder", .attributes = {{"order", names(reversed)}}, .operands = {x}};
    if (rank == 8) {
      EXPECT(turned.run(Isa::kAvx2, pool)[0].array.data == turned.reference()[0].data);
    } else {
      EXPECT_ERROR(
          UserError, { turned.run(Isa::kAvx2, pool); }, "a copy goes over " + std::to_string(rank) + " dims",
          "the CPU kernel takes at most 8");
    }
    const OpRun kept{.op = "broadcast_to", .attributes = {{"type", to_string(x.type)}}, .operands = {x}};
    EXPECT(kept.run(Isa::kAvx2, pool)[0].array.data == x.data);
  }
}

TEST(copy, unknown_conversion_is_an_internal_error) {
  Array x(DType::kF64, 1), y(DType::kF32, 1);
  ThreadPool pool(1);
  EXPECT_ERROR(InternalError, { strided_copy(pool, Isa::kAvx2, {x.data(), DType::kF64, y.data(), DType::kF32, {1}, {1}, {1}, 1}); }, "f64");
}

}  // namespace
}  // namespace mw
