#include "passes/spmd_evaluator.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "comm/communicator.h"
#include "passes/explain.h"

namespace mw::testing {
namespace {

// Calls body(offset of a run in the whole, offset in the block, length) for the block [start, start + size) along one dim.
template <typename Body>
void each_run(const Type& whole, const std::string& dim, int64_t start, int64_t size, Body&& body) {
  const size_t at = static_cast<size_t>(whole.index_of(dim));
  const int64_t inner = whole.strides()[at], rows = whole.dims[at].size;
  int64_t outer = 1;
  for (size_t d = 0; d < at; ++d) outer *= whole.dims[d].size;
  for (int64_t o = 0; o < outer; ++o) body((o * rows + start) * inner, o * size * inner, size * inner);
}

void put_block(HostArray& whole, const std::string& dim, int64_t start, const HostArray& block) {
  each_run(whole.type, dim, start, block.type.size_of(dim),
           [&](int64_t w, int64_t b, int64_t n) { std::copy_n(block.data.begin() + b, n, whole.data.begin() + w); });
}

HostArray concatenated(const std::vector<HostArray>& blocks, const std::string& dim) {
  HostArray whole{blocks[0].type, {}};
  whole.type.dims[static_cast<size_t>(whole.type.index_of(dim))].size *= static_cast<int64_t>(blocks.size());
  whole.data.resize(static_cast<size_t>(whole.type.elements()));
  for (size_t i = 0; i < blocks.size(); ++i) put_block(whole, dim, static_cast<int64_t>(i) * blocks[i].type.size_of(dim), blocks[i]);
  return whole;
}

HostArray part_of(const HostArray& x, const std::string& dim, int64_t n, int64_t parts) {
  const int64_t size = x.type.size_of(dim) / parts;
  return block_of(x, dim, n * size, size);
}

HostArray joined(const std::vector<HostArray>& blocks, const std::string& dim, bool zigzag) {
  if (!zigzag) return concatenated(blocks, dim);
  std::vector<HostArray> halves(2 * blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    halves[i] = part_of(blocks[i], dim, 0, 2);
    halves[halves.size() - 1 - i] = part_of(blocks[i], dim, 1, 2);
  }
  return concatenated(halves, dim);
}

HostArray nth_of(const HostArray& x, const std::string& dim, int64_t n, int64_t parts, bool zigzag) {
  if (!zigzag) return part_of(x, dim, n, parts);
  return concatenated({part_of(x, dim, n, 2 * parts), part_of(x, dim, 2 * parts - 1 - n, 2 * parts)}, dim);
}

HostArray reduced(const std::vector<HostArray>& arrays, bool maximum) {
  HostArray total = arrays[0];
  for (size_t i = 1; i < arrays.size(); ++i) {
    for (size_t k = 0; k < total.data.size(); ++k) {
      total.data[k] = maximum ? std::max(total.data[k], arrays[i].data[k]) : total.data[k] + arrays[i].data[k];
    }
  }
  return total;
}

int64_t shard_index(const std::vector<AxisPart>& parts, const Mesh& mesh, int64_t rank) {
  int64_t index = 0;
  for (const AxisPart& part : parts) index = index * part.size + mesh.index_in(rank, part.axis, part.stride, part.size);
  return index;
}

// What the member at `group.index` gets from everyone's operand.
HostArray collective_result(const Op& op, const std::vector<HostArray>& operands, const Group& group) {
  const std::string_view name = op.def->name;
  const int64_t parts = group.size(), index = group.index;
  const auto zigzag = [&](const std::string& dim) {
    const std::vector<std::string>& axes = op.attributes.names("axes");
    const auto over = [&](const std::string& axis) { return is_zigzag(dim, parse_group_part(axis).axis); };
    MW_CHECK(axes.size() == 1 || std::none_of(axes.begin(), axes.end(), over), "zigzag order among other axes");
    return over(axes.at(0));
  };
  if (name == "ring_shift") return operands[static_cast<size_t>((index + parts - 1) % parts)];
  if (name == "all_reduce") return reduced(operands, op.attributes.text("kind") == "max");
  if (name != "all_to_all") {
    const std::string& dim = op.attributes.text("dim");
    if (name == "all_gather") return joined(operands, dim, zigzag(dim));
    if (name == "reduce_scatter") return nth_of(reduced(operands, false), dim, index, parts, zigzag(dim));
    MW_CHECK(name == "shard_slice", name, " is not simulated");
    return nth_of(operands[static_cast<size_t>(index)], dim, index, parts, zigzag(dim));
  }
  const std::string &split = op.attributes.text("split_dim"), &concat = op.attributes.text("concat_dim");
  MW_CHECK(!zigzag(split) && !zigzag(concat), "all_to_all in zigzag order");
  std::vector<HostArray> arrived;
  for (const HostArray& operand : operands) arrived.push_back(part_of(operand, split, index, parts));
  return concatenated(arrived, concat);
}

// One member's operands, in the order of the group.
using Operands = std::vector<std::vector<HostArray>>;

// A row, with whose it is: what the exchange of expert rows must do, by looking at every row on its own.
struct OneRow {
  size_t part, row;
};

// Of the rows of all members (experts of each, ascending) those that member `to` works on: by expert, then by member.
std::vector<OneRow> rows_for(const Op& op, const std::vector<std::vector<int64_t>>& sent, size_t to) {
  const auto own = static_cast<size_t>(op.attributes.integer("experts")) / sent.size();
  std::vector<OneRow> rows;
  for (size_t expert = to * own; expert < (to + 1) * own; ++expert) {
    for (size_t part = 0; part < sent.size(); ++part) {
      size_t first = 0;
      for (size_t e = 0; e < expert; ++e) first += static_cast<size_t>(sent[part][e]);
      for (size_t i = 0; i < static_cast<size_t>(sent[part][expert]); ++i) rows.push_back({part, first + i});
    }
  }
  return rows;
}

HostArray exchange_result(const Program& program, const Op& op, const Operands& operands, const Group& group) {
  const std::string_view name = op.def->name;
  const auto experts = static_cast<size_t>(op.attributes.integer("experts")), index = static_cast<size_t>(group.index);
  std::vector<std::vector<int64_t>> sent;  // by member and expert
  for (const std::vector<HostArray>& member : operands) {
    std::vector<int64_t> counts(experts, 0);
    if (name == "expert_counts") {
      for (const double expert : member[0].data) ++counts[static_cast<size_t>(expert)];
    } else {
      for (size_t e = 0; e < experts; ++e) counts[e] = static_cast<int64_t>(member.back().data[e]);
    }
    sent.push_back(std::move(counts));
  }
  const Type& type = program.type(op.results[0]);
  HostArray result{type, std::vector<double>(static_cast<size_t>(type.elements()), 0.0)};
  const size_t own = experts / sent.size();
  if (name == "expert_counts") {
    for (size_t e = 0; e < experts; ++e) {
      result.data[e] = static_cast<double>(sent[index][e]);
      result.data[experts + e] = static_cast<double>(sent[e / own][index * own + e % own]);
    }
    for (size_t part = 0; part < sent.size(); ++part)
      MW_CHECK(rows_for(op, sent, part).size() <= static_cast<size_t>(op.attributes.integer("rows")), "more rows than are planned");
    return result;
  }
  if (name == "dispatched_experts") {
    const std::vector<OneRow> rows = rows_for(op, sent, index);
    std::fill(result.data.begin(), result.data.end(), static_cast<double>(own));
    for (size_t r = 0, expert = 0, left = 0; r < rows.size(); ++r) {
      while (left == 0) {
        for (const std::vector<int64_t>& member : sent) left += static_cast<size_t>(member[index * own + expert]);
        ++expert;
      }
      result.data[r] = static_cast<double>(expert - 1);
      --left;
    }
    return result;
  }
  const HostArray& any = operands[0][0];
  const size_t width = any.data.size() / static_cast<size_t>(any.type.dims[0].size);
  for (size_t to = 0; to < sent.size(); ++to) {
    const std::vector<OneRow> rows = rows_for(op, sent, to);
    for (size_t r = 0; r < rows.size(); ++r) {
      if (name == "expert_dispatch" && to == index) {
        std::copy_n(operands[rows[r].part][0].data.begin() + static_cast<int64_t>(rows[r].row * width), width,
                    result.data.begin() + static_cast<int64_t>(r * width));
      } else if (name == "expert_return" && rows[r].part == index) {
        std::copy_n(operands[to][0].data.begin() + static_cast<int64_t>(r * width), width,
                    result.data.begin() + static_cast<int64_t>(rows[r].row * width));
      }
    }
  }
  return result;
}

}  // namespace

HostArray block_of(const HostArray& x, const std::string& dim, int64_t start, int64_t size) {
  HostArray block{x.type, {}};
  block.type.dims[static_cast<size_t>(x.type.index_of(dim))].size = size;
  block.data.resize(static_cast<size_t>(block.type.elements()));
  each_run(x.type, dim, start, size, [&](int64_t w, int64_t b, int64_t n) { std::copy_n(x.data.begin() + w, n, block.data.begin() + b); });
  return block;
}

HostArray shard_of(const HostArray& whole, const Layout& layout, const Mesh& mesh, int64_t rank) {
  HostArray shard = whole;
  for (const DimShards& entry : layout.dims) {
    for (const AxisPart& part : entry.parts)
      shard = nth_of(shard, entry.dim, shard_index({part}, mesh, rank), part.size, is_zigzag(entry.dim, part.axis));
  }
  return shard;
}

SpmdEvaluator::SpmdEvaluator(const Plan& plan, Mesh mesh, ReferenceOptions options)
    : plan_(plan),
      mesh_(std::move(mesh)),
      options_(options),
      states_(static_cast<size_t>(mesh_.size())),
      carried_(states_.size()),
      results_(states_.size()) {}

void SpmdEvaluator::write(const std::string& name, const HostArray& whole) {
  const auto known = plan_.shared.find(name);
  MW_CHECK(known != plan_.shared.end(), "the plan does not know '", name, "'");
  MW_CHECK(known->second.global_type == whole.type, "'", name, "' is ", to_string(known->second.global_type), ", not ",
           to_string(whole.type));
  for (size_t rank = 0; rank < states_.size(); ++rank)
    states_[rank][name] = shard_of(whole, known->second.layout, mesh_, static_cast<int64_t>(rank));
}

HostArray SpmdEvaluator::read(const std::string& name) const {
  const SharedValue& shared = plan_.shared.at(name);
  MW_CHECK(shared.layout.partial.empty(), "'", name, "' is a partial sum");
  HostArray whole{shared.global_type, std::vector<double>(static_cast<size_t>(shared.global_type.elements()), NAN)};
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    const HostArray& shard = states_[rank].at(name);
    // Put the block into a copy of what stands there dim by dim: from the innermost block outwards.
    std::vector<HostArray> levels{whole};
    std::vector<std::pair<std::string, int64_t>> places;
    for (const DimShards& entry : shared.layout.dims) {
      for (const AxisPart& part : entry.parts) MW_CHECK(!is_zigzag(entry.dim, part.axis), "'", name, "' lies in zigzag order");
      const int64_t size = levels.back().type.size_of(entry.dim) / total_size(entry.parts);
      places.emplace_back(entry.dim, shard_index(entry.parts, mesh_, static_cast<int64_t>(rank)) * size);
      levels.push_back(block_of(levels.back(), entry.dim, places.back().second, size));
    }
    MW_CHECK(levels.back().type == shard.type, "'", name, "' is ", to_string(shard.type), " on rank ", rank, ", not ",
             to_string(levels.back().type));
    for (size_t i = 0; i < shard.data.size(); ++i) {
      const double there = levels.back().data[i];
      MW_CHECK(std::isnan(there) || there == shard.data[i], "copies of '", name, "' differ: ", there, " and ", shard.data[i], " on rank ",
               rank);
    }
    levels.back() = shard;
    for (size_t i = places.size(); i-- > 0;) put_block(levels[i], places[i].first, places[i].second, levels[i + 1]);
    whole = std::move(levels[0]);
  }
  return whole;
}

HostArray SpmdEvaluator::result(const std::string& name) const {
  for (size_t rank = 1; rank < results_.size(); ++rank) {
    MW_CHECK(results_[rank].at(name).data == results_[0].at(name).data, "ranks disagree about the result '", name, "'");
  }
  return results_[0].at(name);
}

void SpmdEvaluator::run(const std::map<std::string, HostArray>& inputs) {
  for (const RunRow& row : plan_.order) {
    const Piece& piece = plan_.pieces.at(static_cast<size_t>(row.piece));
    if (before_piece) before_piece(piece, row.microbatch);
    run_piece(piece, row.microbatch, inputs);
  }
}

HostArray SpmdEvaluator::input_shard(const ProgramInput& input, const Type& local, int64_t microbatch, const HostArray& whole,
                                     int64_t rank) const {
  HostArray array = whole;
  const auto known = plan_.shared.find(input.name);
  const Type& global = known == plan_.shared.end() ? local : known->second.global_type;
  if (global.has("batch") && array.type.size_of("batch") != global.size_of("batch")) {
    array = block_of(array, "batch", microbatch * global.size_of("batch"), global.size_of("batch"));
  }
  if (known != plan_.shared.end()) array = shard_of(array, known->second.layout, mesh_, rank);
  MW_CHECK(array.type == local, "input '", input.name, "' is ", to_string(array.type), "; expected ", to_string(local));
  return array;
}

void SpmdEvaluator::run_piece(const Piece& piece, int64_t microbatch, const std::map<std::string, HostArray>& inputs) {
  const Program& program = piece.program;
  values_.assign(states_.size(), Values(program.values.size()));
  for (const ProgramInput& input : program.inputs) {
    for (size_t rank = 0; rank < values_.size(); ++rank) {
      std::optional<HostArray>& value = values_[rank][static_cast<size_t>(input.value)];
      if (input.kind == InputKind::kInput) {
        const auto at = inputs.find(input.name);
        if (at == inputs.end()) throw UserError("input '" + input.name + "' is missing");
        value = input_shard(input, program.type(input.value), microbatch, at->second, static_cast<int64_t>(rank));
      } else {
        const Arrays& from = (input.kind == InputKind::kCarried ? carried_ : states_)[rank];
        MW_CHECK(from.contains(input.name), piece.name, " reads '", input.name, "', which nothing has written");
        value = from.at(input.name);
        MW_CHECK(value->type == program.type(input.value), "'", input.name, "' is ", to_string(value->type), " where ", piece.name,
                 " expects ", to_string(program.type(input.value)));
      }
    }
  }
  for (const Op& op : program.ops) op.def->collective ? run_collective(program, op) : run_op(program, op);
  for (size_t rank = 0; rank < values_.size(); ++rank) {
    for (const ProgramOutput& output : program.outputs) {
      Arrays& to = (output.kind == OutputKind::kResult ? results_ : output.kind == OutputKind::kCarried ? carried_ : states_)[rank];
      to[output.name] = *values_[rank][static_cast<size_t>(output.value)];
    }
  }
}

void SpmdEvaluator::run_op(const Program& program, const Op& op) {
  for (Values& values : values_) {
    ReferenceContext context;
    context.attributes = &op.attributes;
    for (const ValueId id : op.operands) context.operands.push_back(&*values[static_cast<size_t>(id)]);
    std::vector<HostArray> results;
    for (const ValueId id : op.results)
      results.push_back({program.type(id), std::vector<double>(static_cast<size_t>(program.type(id).elements()), 0.0)});
    for (HostArray& result : results) context.results.push_back(&result);
    op.def->reference(context);
    for (size_t i = 0; i < results.size(); ++i) {
      if (options_.round_results) round_to_dtype(results[i]);
      values[static_cast<size_t>(op.results[i])] = std::move(results[i]);
    }
  }
}

void SpmdEvaluator::run_collective(const Program& program, const Op& op) {
  std::vector<GroupPart> parts;
  for (const std::string& text : op.attributes.names("axes")) parts.push_back(parse_group_part(text));
  if (communicates(op)) {
    Traffic& traffic = traffic_[std::string(op.def->name)];
    ++traffic.calls;
    traffic.bytes += program.type(op.operands[0]).bytes();
  }
  std::vector<HostArray> results;
  for (size_t rank = 0; rank < values_.size(); ++rank) {
    const Group group = make_group(mesh_, static_cast<int64_t>(rank), parts);
    MW_CHECK(group.size() == op.attributes.integer("parts"), program.describe(op), " says ", op.attributes.integer("parts"),
             " parts; the group has ", group.size());
    if (op.def->name == "shard_offset") {
      const int64_t part = (group.index + group.size() - op.attributes.integer_or("behind", 0)) % group.size();
      results.push_back({program.type(op.results[0]), {static_cast<double>(part * op.attributes.integer("size"))}});
      continue;
    }
    Operands operands;
    for (const int64_t member : group.ranks) {
      operands.emplace_back();
      for (const ValueId id : op.operands) operands.back().push_back(*values_[static_cast<size_t>(member)][static_cast<size_t>(id)]);
    }
    if (op.attributes.find("experts")) {
      results.push_back(exchange_result(program, op, operands, group));
    } else {
      std::vector<HostArray> first;
      for (const std::vector<HostArray>& member : operands) first.push_back(member[0]);
      results.push_back(collective_result(op, first, group));
    }
    MW_CHECK(results.back().type == program.type(op.results[0]), program.describe(op), " gives ", to_string(results.back().type));
    if (options_.round_results) round_to_dtype(results.back());
  }
  for (size_t rank = 0; rank < values_.size(); ++rank) values_[rank][static_cast<size_t>(op.results[0])] = std::move(results[rank]);
}

}  // namespace mw::testing
