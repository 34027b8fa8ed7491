#include "passes/random_programs.h"

#include <algorithm>

#include "ops/ops.h"
#include "passes/training.h"

namespace mw::testing {
namespace {

const std::vector<Dim> kDims{{"batch", 8}, {"seq", 4}, {"embed", 8}, {"mlp", 4}, {"kv_heads", 2}, {"vocab", 8}};

class ProgramMaker {
 public:
  explicit ProgramMaker(std::mt19937_64& random) : random_(random), b_("random") {
    for (int i = 0; i < 2; ++i) values_.push_back(b_.input("x" + std::to_string(i), random_type(3)));
    for (int i = 0; i < 3; ++i) values_.push_back(b_.parameter("w" + std::to_string(i), random_type(2)));
  }

  Program make() {
    for (int i = 0; i < 12; ++i) {
      const Scope scope(b_, "step" + std::to_string(i));
      add_op();
    }
    std::optional<Tensor> loss;
    const size_t n = values_.size();
    for (size_t i = n - 4; i < n; ++i) {
      b_.output("y" + std::to_string(i - (n - 4)), values_[i]);
      const Tensor bounded = unary("tanh", values_[i]);
      const Tensor term = bounded.type().dims.empty() ? bounded : reduce_sum(bounded, bounded.type().dim_names());
      loss = loss ? *loss + term : term;
    }
    b_.output("loss", *loss);
    return b_.take();
  }

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }

  Type random_type(size_t rank) {
    std::vector<Dim> dims = kDims;
    std::shuffle(dims.begin(), dims.end(), random_);
    dims.resize(rank);
    return {DType::kF32, dims};
  }

  Tensor any() { return values_[below(values_.size())]; }

  // A value that has at least one dim.
  Tensor any_array() {
    for (;;) {
      const Tensor t = any();
      if (!t.type().dims.empty()) return t;
    }
  }

  static bool holds(const Type& outer, const Type& inner) {
    return std::all_of(inner.dims.begin(), inner.dims.end(), [&](const Dim& dim) { return outer.has(dim.name); });
  }

  void add_op() {
    const Tensor a = any(), x = any_array();
    const std::string dim = x.type().dims[below(x.type().dims.size())].name;
    switch (below(9)) {
      case 0:
        return values_.push_back(unary("tanh", a));
      case 1:
        return values_.push_back(a * 0.5);
      case 2:
      case 3:
        return add_binary(a);
      case 4:
        return add_dot(x);
      case 5:
        return values_.push_back(reduce_sum(x, {dim}));
      case 6:
        return values_.push_back(reduce_max(x, {dim}));
      case 7:
        return values_.push_back(rms_norm(x, weight_for(x, dim), 1e-3));
      default: {
        std::vector<std::string> order = x.type().dim_names();
        std::shuffle(order.begin(), order.end(), random_);
        return values_.push_back(reorder(x, order));
      }
    }
  }

  Tensor weight_for(Tensor x, const std::string& dim) {
    return b_.parameter("norm" + std::to_string(num_norms_++), {DType::kF32, {{dim, x.size(dim)}}});
  }

  void add_binary(Tensor a) {
    const Tensor b = any();
    const char* names[] = {"add", "sub", "mul", "max"};
    const char* name = names[below(4)];
    if (holds(a.type(), b.type()) || holds(b.type(), a.type())) {
      values_.push_back(binary(name, a, b));
    } else {
      values_.push_back(a + a);
    }
  }

  void add_dot(Tensor x) {
    const Tensor y = any_array();
    std::vector<std::string> shared;
    size_t rank = x.type().dims.size();
    for (const Dim& dim : y.type().dims) {
      if (x.has(dim.name)) {
        if (below(2)) shared.push_back(dim.name);
      } else {
        ++rank;
      }
    }
    if (rank > 4) return values_.push_back(square(x) * 0.5);
    values_.push_back(unary("tanh", dot(x, y, shared) * 0.2));
  }

  std::mt19937_64& random_;
  Builder b_;
  std::vector<Tensor> values_;
  int num_norms_ = 0;
};

}  // namespace

Program random_program(std::mt19937_64& random) { return ProgramMaker(random).make(); }

std::map<std::string, HostArray> random_inputs(const Program& program, uint64_t seed) {
  std::map<std::string, HostArray> inputs;
  for (const ProgramInput& input : program.inputs) inputs[input.name] = random_array(program.type(input.value), ++seed, 0.7);
  return inputs;
}

Mesh random_mesh(std::mt19937_64& random) {
  for (;;) {
    std::vector<std::pair<std::string, int64_t>> axes;
    for (const std::string& axis : Mesh::axis_names()) axes.emplace_back(axis, int64_t{1} << (random() % 3));
    const Mesh mesh(axes);
    if (mesh.size() > 1 && mesh.size() <= 8) return mesh;
  }
}

Rules random_rules(std::mt19937_64& random) {
  const auto table = [&](bool storage) {
    RuleTable rows;
    for (const std::string& axis : Mesh::axis_names()) {
      for (int i = 0; i < 2; ++i) rows.push_back({kDims[random() % kDims.size()].name, axis, random() % 2 == 0 && !is_zigzag("seq", axis)});
    }
    if (storage) rows.push_back({"*", Mesh::axis_names()[random() % Mesh::axis_names().size()], false});
    std::shuffle(rows.begin(), rows.end(), random);
    return rows;
  };
  return {.compute = table(false), .parameters = table(true), .gradients = table(true), .optimizer = table(true)};
}

}  // namespace mw::testing
