#include "exec_cpu/op_kernel_run.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "exec_cpu/kernel_testing.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

// Bytes aligned to a cache line as placed values are, and not one too many.
class Bytes {
 public:
  explicit Bytes(int64_t count) : data_(static_cast<std::byte*>(::operator new(static_cast<size_t>(count), std::align_val_t(64)))) {
    std::fill_n(data_.get(), count, std::byte{0xff});
  }
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

Bytes stored(const HostArray& array) {
  Bytes bytes(array.type.bytes());
  for (size_t i = 0; i < array.data.size(); ++i) store_element(array.type.dtype, bytes.data(), static_cast<int64_t>(i), array.data[i]);
  return bytes;
}

ThreadPool& pool_of(int threads) {
  static ThreadPool one(1), two(2);
  return threads == 1 ? one : two;
}

}  // namespace

std::vector<OpRun::Result> OpRun::run(Isa isa, ThreadPool& pool, std::string* choice) const {
  const OpDef* def = find_op(op);
  MW_CHECK(def, "no op ", op);
  Signature signature{.operands = {}, .results = {}, .attributes = &attributes};
  for (const HostArray& operand : operands) signature.operands.push_back(&operand.type);
  const std::vector<Type> types = infer_types(*def, signature);
  for (const Type& type : types) signature.results.push_back(&type);
  const cpu::KernelMaker maker = cpu::find_kernel(op);
  if (!maker) fail(__FILE__, __LINE__, "no kernel for " + op);
  const cpu::Kernel kernel = maker(signature, {.isa = isa, .threads = pool.threads()});
  if (choice) *choice = kernel.choice;

  std::vector<Bytes> in, out;
  std::vector<const std::byte*> operand_pointers;
  std::vector<std::byte*> result_pointers;
  for (const HostArray& operand : operands) operand_pointers.push_back(in.emplace_back(stored(operand)).data());
  for (size_t i = 0; i < types.size(); ++i) {
    const bool in_place = i < over.size() && over[i] >= 0;
    result_pointers.push_back(in_place ? in[static_cast<size_t>(over[i])].data() : out.emplace_back(types[i].bytes()).data());
  }
  const Bytes workspace(kernel.workspace_bytes);
  kernel.run({operand_pointers.data(), result_pointers.data(), workspace.data(), pool});

  std::vector<Result> results;
  for (size_t i = 0; i < types.size(); ++i) {
    Result result{.array = {types[i], std::vector<double>(static_cast<size_t>(types[i].elements()))},
                  .bytes = std::vector<char>(static_cast<size_t>(types[i].bytes()))};
    for (size_t e = 0; e < result.array.data.size(); ++e)
      result.array.data[e] = load_element(types[i].dtype, result_pointers[i], static_cast<int64_t>(e));
    std::copy_n(reinterpret_cast<const char*>(result_pointers[i]), result.bytes.size(), result.bytes.begin());
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<HostArray> OpRun::reference() const { return evaluate_op_reference(*find_op(op), attributes, operands); }

void check_kernel(const OpRun& run, double tolerance) {
  const std::vector<HostArray> expected = run.reference();
  for (const Isa isa : available_isas()) {
    const std::string where = run.op + " at " + std::string(isa_name(isa));
    const auto one = run.run(isa, pool_of(1)), two = run.run(isa, pool_of(2));
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::string what = where + ", result " + std::to_string(i);
      const bool exact = !is_float(expected[i].type.dtype);
      std::vector<double> reference = expected[i].data;
      if (exact) {
        for (double& x : reference) x = std::trunc(x);
      }
      expect_close(one[i].array.data, reference, exact ? 0.0 : tolerance, what);
      if (one[i].bytes != two[i].bytes) fail(__FILE__, __LINE__, what + ": one and two threads give different bits");
    }
  }
}

}  // namespace mw::testing
