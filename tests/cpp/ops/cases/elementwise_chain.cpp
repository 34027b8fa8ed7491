#include "ops/harness.h"

namespace mw::testing {

const OpCases kElementwiseChain("elementwise_chain", {
    {.name = "scale_and_add", .operands = {normal("f32[batch=2, embed=4]"), normal("f32[batch=2, embed=4]"), normal("f32[embed=4]")},
     .attributes = {{"code", names({"mul 0 1", "constant 0.5", "mul t0 t1", "add t2 2"})}, {"results", sizes({3})}}, .results = {"f32[batch=2, embed=4]"}},
    {.name = "two_results_and_a_cast", .operands = {normal("f32[seq=3, embed=4]"), mask("u8[seq=3, embed=4]")},
     .attributes = {{"code", names({"exp 0", "cast t0 bf16", "constant -1e-05", "select 1 t0 t2"})}, {"results", sizes({3, 1})}}, .results = {"f32[seq=3, embed=4]", "bf16[seq=3, embed=4]"}, .other_dtypes = false},
    {.name = "silu_gate", .operands = {normal("f32[seq=4, mlp=6]"), normal("f32[seq=4, mlp=6]")}, .attributes = {{"code", names({"silu 0", "mul t0 1"})}, {"results", sizes({1})}}, .results = {"f32[seq=4, mlp=6]"}},
});

const OpErrors kElementwiseChainErrors("elementwise_chain", {
    {{"f32[embed=4]"}, {{"code", names({"expp 0"})}, {"results", sizes({0})}}, "chain instruction 'expp 0': there is no elementwise op 'expp' (did you mean 'exp'?)"},
    {{"f32[embed=4]"}, {{"code", names({"mul 0"})}, {"results", sizes({0})}}, "expected 3 words, found 2"},
    {{"f32[embed=4]"}, {{"code", names({"exp x"})}, {"results", sizes({0})}}, "'x' is no argument"},
    {{"f32[embed=4]"}, {{"code", names({"exp 1"})}, {"results", sizes({0})}}, "reads operand 1; there are 1"},
    {{"f32[embed=4]"}, {{"code", names({"exp t0"})}, {"results", sizes({0})}}, "reads result 0; there are 0 before it"},
    {{"f32[embed=4]"}, {{"code", names({"exp 0"})}, {"results", sizes({1})}}, "results names instruction 1 of a chain of 1"},
    {{"f32[embed=4]"}, {{"code", names({"constant half"})}, {"results", sizes({0})}}, "'half' is not a number"},
    {{"f32[embed=4]"}, {{"code", names({"cast 0 f31"})}, {"results", sizes({0})}}, "f31"},
});

}  // namespace mw::testing
