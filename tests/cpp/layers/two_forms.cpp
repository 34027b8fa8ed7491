#include "layers/two_forms.h"

#include <cmath>

#include "exec/reference/evaluate.h"
#include "runner.h"

namespace mw::testing {
namespace {

HostArray filled(const Type& type, const std::function<double(int64_t)>& value) {
  HostArray array{type, std::vector<double>(static_cast<size_t>(type.elements()))};
  for (int64_t i = 0; i < type.elements(); ++i) array.data[static_cast<size_t>(i)] = value(i);
  return array;
}

HostArray hidden_states(const TwoForms& layer) {
  const Type type{DType::kF32, {{"batch", 2}, {"seq", layer.seq}, {"embed", layer.embed}}};
  return make_operands({.name = "x", .operands = {normal(to_string(type))}}, 1)[0];
}

// Parameters by name, the same in both forms; states are zeros.
Arrays arrays_of(const Program& program) {
  Arrays arrays;
  for (const ProgramInput& input : program.inputs) {
    const Type& type = program.type(input.value);
    if (input.kind == InputKind::kState) arrays.emplace(input.name, filled(type, [](int64_t) { return 0.0; }));
    if (input.kind == InputKind::kParameter)
      arrays.emplace(input.name,
                     make_operands({.name = "w", .operands = {normal(to_string(type), 0.7)}}, std::hash<std::string>()(input.name))[0]);
  }
  return arrays;
}

}  // namespace

HostArray run_in_sequence(const TwoForms& layer, int64_t first) {
  Builder b("in_sequence");
  const HostArray x = hidden_states(layer);
  const Type ints{DType::kI32, {{"batch", 2}, {"seq", layer.seq}}};
  b.output("y", layer.build(b.input("x", x.type), Tokens::in_sequence(b.input("positions", ints), b.input("segments", ints))));
  Arrays arrays = arrays_of(b.program());
  arrays.emplace("x", x);
  arrays.emplace("positions", filled(ints, [&](int64_t i) { return static_cast<double>(first + i % layer.seq); }));
  arrays.emplace("segments", filled(ints, [](int64_t) { return 1.0; }));
  verify(b.program(), "trace");
  return evaluate_reference(b.program(), arrays, {.round_results = false}).at("y");
}

std::map<std::string, Type> expect_same_in_both_forms(const std::string& what, const TwoForms& layer) {
  const HostArray whole = run_in_sequence(layer), x = hidden_states(layer);
  Builder b("through_caches");
  const Type row{DType::kI32, {{"batch", 1}, {"seq", layer.step}}},
      step_x{DType::kF32, {{"batch", 1}, {"seq", layer.step}, {"embed", layer.embed}}};
  const Tensor slots = b.input("slots", row), positions = b.input("positions", row);
  const int64_t length = layer.cache_length > 0 ? layer.cache_length : layer.seq;
  b.output("y",
           layer.build(b.input("x", step_x),
                       Tokens::through_caches(positions, {.slots = slots, .num_slots = 3, .length = length, .step_tokens = layer.step})));
  verify(b.program(), "trace");
  Arrays states;
  std::map<std::string, Type> caches;
  const Arrays parameters = arrays_of(b.program());
  for (const auto& [name, array] : parameters) {
    if (!name.starts_with(kCachePrefix)) continue;
    states.emplace(name, array);
    caches.emplace(name, array.type);
  }

  // Slot 2 holds the first sequence and slot 0 the second, which runs behind; a token between them is padding.
  const int64_t slot_of[2] = {2, 0};
  int64_t done[2] = {0, 0};
  for (int64_t turn = 0; done[0] < layer.seq || done[1] < layer.seq; ++turn) {
    HostArray step{step_x, std::vector<double>(static_cast<size_t>(step_x.elements()), 0.5)};
    HostArray slot = filled(row, [](int64_t) { return -1.0; }), position = filled(row, [](int64_t) { return 0.0; });
    std::vector<int64_t> from(static_cast<size_t>(layer.step), -1);
    int64_t at = 0;
    for (const int64_t sequence : {0, 1}) {
      const int64_t most = sequence == 0 ? 1 + turn % (layer.step - 2) : layer.step - at;
      for (int64_t i = 0; i < most && done[sequence] < layer.seq; ++i, ++at) {
        const int64_t token = sequence * layer.seq + done[sequence];
        slot.data[static_cast<size_t>(at)] = static_cast<double>(slot_of[sequence]);
        position.data[static_cast<size_t>(at)] = static_cast<double>(done[sequence]++);
        from[static_cast<size_t>(at)] = token;
        std::copy_n(x.data.begin() + token * layer.embed, layer.embed, step.data.begin() + at * layer.embed);
      }
      if (sequence == 0) ++at;
    }
    Arrays arrays = parameters;
    for (const auto& [name, state] : states) arrays.at(name) = state;
    arrays.insert({{"x", step}, {"slots", slot}, {"positions", position}});
    Arrays results = evaluate_reference(b.program(), arrays, {.round_results = false});
    for (auto& [name, state] : states) state = results.at(name);
    for (int64_t t = 0; t < layer.step; ++t) {
      for (int64_t e = 0; e < layer.embed && from[static_cast<size_t>(t)] >= 0; ++e) {
        const double found = results.at("y").data[static_cast<size_t>(t * layer.embed + e)],
                     expected = whole.data[static_cast<size_t>(from[static_cast<size_t>(t)] * layer.embed + e)];
        if (!(std::abs(found - expected) <= 1e-9 * (1 + std::abs(expected)))) {
          throw Failure(what + ": token " + std::to_string(from[static_cast<size_t>(t)]) + " is " + show(found) + " through caches and " +
                        show(expected) + " in its sequence");
        }
      }
    }
  }
  return caches;
}

}  // namespace mw::testing
