// All ops by name. Adding an op: its file, a row in ops/op_list.h, its cases in tests/cpp/ops/cases, its kernels.
#pragma once
#include <span>
#include <string_view>

#include "ir/op_def.h"

namespace mw {

const OpDef* find_op(std::string_view name);  // null when unknown
std::span<const OpDef* const> all_ops();

}  // namespace mw
