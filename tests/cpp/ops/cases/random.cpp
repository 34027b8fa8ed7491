#include "ops/harness.h"

namespace mw::testing {
namespace {

const Attributes kMatrix{{"name", "layers.0.dropout"}, {"sizes", sizes({2, 6})}, {"type", "f32[batch=2, seq=6]"}};
const Attributes kF16{{"name", "a"}, {"sizes", sizes({2})}, {"type", "f16[batch=2]"}};
const Attributes kShort{{"name", "a"}, {"sizes", sizes({2})}, {"type", "f32[batch=2, seq=6]"}};

std::vector<OpCase> cases() {
  return {{.name = "matrix", .operands = {exactly("i32[]", {17}), exactly("i32[]", {3})}, .attributes = kMatrix, .results = {"f32[batch=2, seq=6]"}, .other_dtypes = false}};
}
std::vector<OpErrorCase> errors() {
  return {{{"i32[]", "i32[]"}, kF16, "random numbers are f32, not f16[batch=2]"},
          {{"i32[]", "f32[]"}, kMatrix, "step is f32[]; expected i32[]"},
          {{"i32[]", "i32[]"}, kShort, "names one whole size for each dim"}};
}

}  // namespace

const OpCases kUniform("random_uniform", cases()), kNormal("random_normal", cases());
const OpErrors kUniformErrors("random_uniform", errors()), kNormalErrors("random_normal", errors());

}  // namespace mw::testing
