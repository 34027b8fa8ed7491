#include "exec/cpu/kernels/named_loops.h"

namespace mw::cpu {

int64_t NamedLoops::elements() const {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

NamedLoops named_loops(const std::vector<Dim>& dims, const std::vector<const Type*>& arrays) {
  NamedLoops loops;
  for (const Dim& dim : dims) loops.sizes.push_back(dim.size);
  for (const Type* type : arrays) {
    const std::vector<int64_t> steps = type->strides();
    std::vector<int64_t> strides;
    for (const Dim& dim : dims) {
      const int index = type->index_of(dim.name);
      strides.push_back(index < 0 ? 0 : steps[static_cast<size_t>(index)]);
    }
    loops.strides.push_back(std::move(strides));
  }
  return loops;
}

NamedLoops joined(const NamedLoops& loops) {
  NamedLoops result;
  result.strides.resize(loops.strides.size());
  for (size_t i = 0; i < loops.rank(); ++i) {
    if (loops.sizes[i] == 1) continue;
    bool even = result.rank() > 0;
    for (size_t a = 0; a < loops.strides.size(); ++a) even = even && result.strides[a].back() == loops.strides[a][i] * loops.sizes[i];
    if (!even) result.sizes.push_back(1);
    result.sizes.back() *= loops.sizes[i];
    for (size_t a = 0; a < loops.strides.size(); ++a) {
      if (!even) result.strides[a].push_back(0);
      result.strides[a].back() = loops.strides[a][i];
    }
  }
  return result;
}

AlongDim::AlongDim(const Type& type, std::string_view dim) : outer(1), size(type.size_of(dim)), inner(1) {
  const int at = type.index_of(dim);
  for (int i = 0; i < type.rank(); ++i) {
    if (i != at) (i < at ? outer : inner) *= type.dims[static_cast<size_t>(i)].size;
  }
}

int64_t elements_from(const Type& type, int first) {
  int64_t product = 1;
  for (int i = first; i < type.rank(); ++i) product *= type.dims[static_cast<size_t>(i)].size;
  return product;
}

UserError too_many_loops(std::string_view what, size_t found, size_t most) {
  return UserError(concat_text(what, " goes over ", found, " dims that do not lie one behind the other; the CPU kernel takes at most ",
                               most, ", so merge some"));
}

void expect_kernel_dtype(std::string_view kernel, DType dtype) {
  if (dtype == DType::kF32 || dtype == DType::kBF16) return;
  throw UserError(std::string(kernel) + " in " + std::string(dtype_name(dtype)) + ": the CPU kernel computes with f32 and bf16");
}

}  // namespace mw::cpu
