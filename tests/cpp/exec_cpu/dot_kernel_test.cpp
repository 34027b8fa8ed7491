// dot as the models use it: products that must reach the GEMM without copies, the accumulator, and orders that need copies or loops.
#include "base/error.h"
#include "exec/reference/evaluate.h"
#include "exec_cpu/op_kernel_run.h"
#include "runner.h"

namespace mw::testing {
namespace {

struct Product {
  const char* name;
  std::string a, b;
  std::vector<std::string> contract;
};

// y = x W, dX = dY W, dW = dY^T X, and the output projection, of a block with heads.
const std::vector<Product> kPlain{
    {"projection to heads", "[batch=2, seq=5, embed=24]", "[kv_heads=2, q_per_kv=3, head_dim=8, embed=24]", {"embed"}},
    {"gradient of its input",
     "[batch=2, seq=5, kv_heads=2, q_per_kv=3, head_dim=8]",
     "[kv_heads=2, q_per_kv=3, head_dim=8, embed=24]",
     {"kv_heads", "q_per_kv", "head_dim"}},
    {"gradient of its weight", "[batch=2, seq=5, kv_heads=2, q_per_kv=3, head_dim=8]", "[batch=2, seq=5, embed=24]", {"batch", "seq"}},
    {"output projection",
     "[batch=2, seq=5, kv_heads=2, q_per_kv=3, head_dim=8]",
     "[embed=24, kv_heads=2, q_per_kv=3, head_dim=8]",
     {"kv_heads", "q_per_kv", "head_dim"}},
    {"gradient of its input", "[batch=2, seq=5, embed=24]", "[embed=24, kv_heads=2, q_per_kv=3, head_dim=8]", {"embed"}},
    {"gradient of its weight", "[batch=2, seq=5, embed=24]", "[batch=2, seq=5, kv_heads=2, q_per_kv=3, head_dim=8]", {"batch", "seq"}},
    {"experts", "[experts=3, tokens=7, embed=10]", "[experts=3, embed=10, mlp=17]", {"embed"}},
    {"one row", "[embed=33]", "[vocab=19, embed=33]", {"embed"}},
    {"one column", "[batch=2, seq=9, embed=33]", "[embed=33]", {"embed"}},
    {"a number", "[embed=33]", "[embed=33]", {"embed"}},
    {"rows times rows", "[seq=7]", "[embed=9]", {}},
};

const std::vector<Product> kOthers{
    {"scores of all heads",
     "[batch=2, seq=4, kv_heads=2, q_per_kv=3, head_dim=8]",
     "[batch=2, kv_seq=5, kv_heads=2, head_dim=8]",
     {"head_dim"}},
    {"weighted values", "[batch=2, seq=4, kv_heads=2, q_per_kv=3, kv_seq=5]", "[batch=2, kv_seq=5, kv_heads=2, value_dim=8]", {"kv_seq"}},
    {"gradient of keys",
     "[batch=2, seq=4, kv_heads=2, q_per_kv=3, kv_seq=5]",
     "[batch=2, seq=4, kv_heads=2, q_per_kv=3, head_dim=8]",
     {"seq", "q_per_kv"}},
    {"contracted dims apart in the first",
     "[kv_heads=3, seq=4, head_dim=5]",
     "[embed=6, kv_heads=3, head_dim=5]",
     {"kv_heads", "head_dim"}},
    {"contracted dims apart in both", "[kv_heads=3, seq=4, head_dim=5]", "[kv_heads=3, embed=6, head_dim=5]", {"kv_heads", "head_dim"}},
    {"contracted dims in two orders", "[head_dim=5, kv_heads=3, seq=4]", "[kv_heads=3, head_dim=5, embed=6]", {"kv_heads", "head_dim"}},
    {"batch dim inside", "[seq=4, experts=3, embed=5]", "[mlp=6, embed=5, experts=3]", {"embed"}},
    {"batch dim innermost in all", "[seq=4, experts=3]", "[seq=4, experts=3]", {"seq"}},
    {"sizes of one", "[batch=1, seq=1, embed=8]", "[mlp=1, embed=8]", {"embed"}},
    {"nothing to contract over", "[seq=4, embed=0]", "[mlp=6, embed=0]", {"embed"}},
    {"no rows", "[seq=0, embed=4]", "[mlp=6, embed=4]", {"embed"}},
};

HostArray random_array(const std::string& type, uint64_t seed) {
  HostArray array = make_operands(OpCase{.name = "", .operands = {normal(type)}}, seed)[0];
  round_to_dtype(array);
  return array;
}

OpRun run_of(const Product& product, const std::string& dtype, const std::string& result_dtype) {
  OpRun run{.op = "dot",
            .attributes = {{"contract", names(product.contract)}},
            .operands = {random_array(dtype + product.a, 1), random_array(dtype + product.b, 2)}};
  if (result_dtype != dtype) run.attributes.set("dtype", result_dtype);
  return run;
}

void check_product(const Product& product, bool plain) {
  ThreadPool pool(1);
  for (const auto& [dtype, result] : {std::pair{"f32", "f32"}, std::pair{"bf16", "bf16"}, std::pair{"bf16", "f32"}}) {
    OpRun run = run_of(product, dtype, result);
    const double tolerance = std::string(result) == "f32" ? 1e-5 : 1e-2;
    try {
      check_kernel(run, tolerance);
      std::string choice;
      const HostArray y = run.run(available_isas().back(), pool, &choice)[0].array;
      if (plain && choice.find(" x ") != std::string::npos) throw Failure("is looped over: " + choice);
      if (plain && choice.find("copy") != std::string::npos) throw Failure("copies: " + choice);
      // The same added to an accumulator, elsewhere and in place.
      run.attributes.set("accumulate", true);
      run.operands.push_back(random_array(to_string(y.type), 3));
      check_kernel(run, tolerance);
      run.over = {2};
      check_kernel(run, tolerance);
    } catch (const std::exception& error) {
      throw Failure(std::string(product.name) + " in " + dtype + " to " + result + ": " + error.what());
    }
  }
}

}  // namespace

TEST(exec_cpu, dot_of_the_models_needs_no_copies) {
  for (const Product& product : kPlain) check_product(product, true);
}

TEST(exec_cpu, dot_of_any_order_of_dims) {
  for (const Product& product : kOthers) check_product(product, false);
}

TEST(exec_cpu, dot_names_the_dtype_it_cannot_take) {
  const OpRun run = run_of(kPlain[0], "f16", "f16");
  ThreadPool pool(1);
  EXPECT_ERROR(UserError, { run.run(available_isas().back(), pool); }, "dot in f16: the CPU kernel computes with f32 and bf16");
}

}  // namespace mw::testing
