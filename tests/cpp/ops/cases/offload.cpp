#include "ops/harness.h"

namespace mw::testing {

const OpCases kToHost("to_host", {
    {.name = "three_dims", .operands = {normal("f32[batch=2, seq=4, embed=6]")}, .results = {"f32[batch=2, seq=4, embed=6]"}},
    {.name = "integers", .operands = {ids("i32[batch=2, seq=4]", 0, 9)}, .results = {"i32[batch=2, seq=4]"}},
});

const OpCases kFromHost("from_host", {
    {.name = "three_dims", .operands = {normal("f32[batch=2, seq=4, embed=6]")}, .results = {"f32[batch=2, seq=4, embed=6]"}},
});

}  // namespace mw::testing
