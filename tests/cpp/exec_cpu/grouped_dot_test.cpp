// Products of rows that belong to experts: every size of group, every order of the weight's dims, sums added to an accumulator, and bits
// that depend on a row alone.
#include <numeric>
#include <random>

#include "base/error.h"
#include "exec/reference/evaluate.h"
#include "exec_cpu/kernel_testing.h"
#include "exec_cpu/op_kernel_run.h"
#include "runner.h"

namespace mw::testing {
namespace {

HostArray random_array(const std::string& type, uint64_t seed) {
  HostArray array = make_operands(OpCase{.name = "", .operands = {normal(type)}}, seed)[0];
  round_to_dtype(array);
  return array;
}

HostArray experts_of(const std::vector<int64_t>& rows_of_expert) {
  HostArray array{{DType::kI32, {{"expert_rows", std::accumulate(rows_of_expert.begin(), rows_of_expert.end(), int64_t{0})}}}, {}};
  for (size_t e = 0; e < rows_of_expert.size(); ++e)
    array.data.insert(array.data.end(), static_cast<size_t>(rows_of_expert[e]), static_cast<double>(e));
  return array;
}

// Idle experts, one row, tails of a tile, more than one tile, all rows on one expert; rows of none, which stand last.
const std::vector<std::vector<int64_t>> kGroups{{5, 0, 1, 130}, {0, 0, 17, 0}, {8, 8, 8, 8},     {0, 300, 3, 0},
                                                {1, 1, 1, 0},   {0, 0, 0, 0},  {3, 0, 60, 2, 9}, {0, 0, 0, 0, 5}};

std::string rows_text(const HostArray& experts) { return "expert_rows=" + std::to_string(experts.data.size()); }

OpRun product(const std::string& dtype, const HostArray& experts, const std::string& row_dims, const std::string& weight,
              const std::string& contract) {
  return {
      .op = "grouped_dot",
      .attributes = {{"contract", names({contract})}},
      .operands = {random_array(dtype + "[" + rows_text(experts) + ", " + row_dims + "]", 1), random_array(dtype + weight, 2), experts}};
}

struct Weight {
  std::string row_dims, weight, contract, gradient_dims;
};
const std::vector<Weight> kWeights{
    {"embed=33", "[experts=4, expert_mlp=50, embed=33]", "embed", "expert_mlp=50"},
    {"expert_mlp=40", "[experts=4, expert_mlp=40, embed=64]", "expert_mlp", "embed=64"},
    {"embed=24", "[experts=4, embed=24, expert_mlp=17, gate_up=2]", "embed", "expert_mlp=17, gate_up=2"},
    {"embed=24", "[experts=4, gate_up=2, embed=24, expert_mlp=16]", "embed", "gate_up=2, expert_mlp=16"},
    {"embed=1", "[experts=4, expert_mlp=3, embed=1]", "embed", "expert_mlp=3"},
    {"embed=7", "[experts=4, embed=7, expert_mlp=1]", "embed", "expert_mlp=1"},
};

}  // namespace

TEST(exec_cpu, grouped_dot_of_any_sizes) {
  for (const std::vector<int64_t>& groups : kGroups) {
    const HostArray experts = experts_of(groups);
    for (const Weight& w : kWeights) {
      for (const char* dtype : {"f32", "bf16"}) {
        const double tolerance = dtype == std::string("f32") ? 1e-5 : 1e-2;
        OpRun run = product(dtype, experts, w.row_dims, w.weight, w.contract);
        check_kernel(run, tolerance);
        run.attributes.set("accumulate", true);
        run.operands.push_back(random_array(std::string(dtype) + "[" + rows_text(experts) + ", " + w.gradient_dims + "]", 3));
        check_kernel(run, tolerance);
        run.over = {3};
        check_kernel(run, tolerance);
      }
    }
  }
}

TEST(exec_cpu, grouped_dot_weights_of_any_sizes) {
  for (const std::vector<int64_t>& groups : kGroups) {
    const HostArray experts = experts_of(groups);
    for (const Weight& w : kWeights) {
      for (const auto& [dtype, result] : {std::pair{"f32", "f32"}, std::pair{"bf16", "f32"}, std::pair{"bf16", "bf16"}}) {
        const double tolerance = result == std::string("f32") ? 1e-5 : 1e-2;
        OpRun run{.op = "grouped_dot_weights",
                  .attributes = {{"type", result + w.weight}},
                  .operands = {random_array(std::string(dtype) + "[" + rows_text(experts) + ", " + w.row_dims + "]", 1),
                               random_array(std::string(dtype) + "[" + rows_text(experts) + ", " + w.gradient_dims + "]", 2), experts}};
        check_kernel(run, tolerance);
        run.attributes.set("accumulate", true);
        run.operands.push_back(random_array(result + w.weight, 3));
        check_kernel(run, tolerance);
        run.over = {3};
        check_kernel(run, tolerance);
      }
    }
  }
}

// More than one block of the contraction, and more than one tile of rows and of lanes.
TEST(exec_cpu, grouped_products_in_many_parts) {
  const HostArray experts = experts_of({1700, 3});
  for (const char* dtype : {"f32", "bf16"}) {
    const double tolerance = dtype == std::string("f32") ? 1e-5 : 1e-2;
    const std::string rows = std::string(dtype) + "[" + rows_text(experts) + ", ";
    check_kernel(product(dtype, experts_of({530, 2}), "embed=1700", "[experts=2, expert_mlp=9, embed=1700]", "embed"), tolerance);
    check_kernel(product(dtype, experts_of({130, 2}), "embed=12", "[experts=2, expert_mlp=435, embed=12]", "embed"), tolerance);
    for (const char* result : {dtype, "f32"}) {
      const std::string weight = std::string(result) + "[experts=2, expert_mlp=530, embed=6]";
      OpRun run{.op = "grouped_dot_weights",
                .attributes = {{"type", weight}},
                .operands = {random_array(rows + "embed=6]", 1), random_array(rows + "expert_mlp=530]", 2), experts}};
      check_kernel(run, tolerance);
      run.attributes.set("accumulate", true);
      run.operands.push_back(random_array(weight, 3));
      check_kernel(run, tolerance);
    }
  }
}

TEST(exec_cpu, a_row_has_the_same_bits_whatever_stands_beside_it) {
  ThreadPool pool(2);
  for (const char* dtype : {"f32", "bf16"}) {
    const OpRun many = product(dtype, experts_of({5, 0, 60, 131}), "embed=70", "[experts=4, expert_mlp=50, embed=70]", "embed");
    for (const Isa isa : available_isas()) {
      const auto all = many.run(isa, pool)[0];
      for (const size_t row : {size_t{0}, size_t{4}, size_t{5}, size_t{33}, size_t{64}, size_t{65}, size_t{195}}) {
        OpRun one = many;
        const size_t width = 70;
        one.operands[0] = {{many.operands[0].type.dtype, {{"expert_rows", 1}, {"embed", 70}}}, {}};
        one.operands[0].data.assign(many.operands[0].data.begin() + static_cast<int64_t>(row * width),
                                    many.operands[0].data.begin() + static_cast<int64_t>((row + 1) * width));
        one.operands[2] = {{DType::kI32, {{"expert_rows", 1}}}, {many.operands[2].data[row]}};
        const auto single = one.run(isa, pool)[0];
        const auto begin = all.bytes.begin() + static_cast<int64_t>(row * single.bytes.size());
        EXPECT(std::equal(single.bytes.begin(), single.bytes.end(), begin));
      }
    }
  }
}

TEST(exec_cpu, rows_out_of_order_are_refused) {
  ThreadPool pool(1);
  OpRun run = product("f32", experts_of({2, 2, 0, 0}), "embed=4", "[experts=4, expert_mlp=3, embed=4]", "embed");
  run.operands[2].data = {0, 1, 0, 1};
  EXPECT_ERROR(InternalError, { run.run(available_isas().back(), pool); }, "row 2 is of expert 0 of 4, the one before of 1");
  run.operands[2].data = {0, 1, 1, 5};
  EXPECT_ERROR(InternalError, { run.run(available_isas().back(), pool); }, "row 3 is of expert 5 of 4");
  run.operands[2].data = {0, 4, 1, 4};  // 4: of none, which only the last rows may be
  EXPECT_ERROR(InternalError, { run.run(available_isas().back(), pool); }, "row 2 is of expert 1 of 4, the one before of 4");
}

}  // namespace mw::testing
