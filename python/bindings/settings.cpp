#include "settings.h"

#include <pybind11/stl.h>

#include "base/error.h"
#include "config/model_config_json.h"
#include "ranks.h"

namespace mw {

ModelConfig config_from(const std::string& text) { return parse_model_config(text, "model configuration"); }

DType compute_dtype(const std::string& name) {
  const DType dtype = parse_dtype(name);
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    throw UserError("dtype '" + name + "' cannot be computed in; expected float32 or bfloat16");
  return dtype;
}

DType reduce_dtype(const std::string& name) {
  const DType dtype = parse_dtype(name);
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    throw UserError("reduce_dtype '" + name + "' is none that gradients are sent in; expected float32 or bfloat16");
  return dtype;
}

Mesh make_mesh(const std::map<std::string, int64_t>& axes) { return Mesh({axes.begin(), axes.end()}); }

Rules make_rules(const py::object& given) {
  const py::dict rules = given.is_none() ? py::dict() : py::cast<py::dict>(given);
  const auto set_attention = [&](Rules made) {
    if (rules.contains("context_attention"))
      made.context_attention = parse_context_attention(py::cast<std::string>(rules["context_attention"]));
    return made;
  };
  if (!rules.contains("compute")) return set_attention(default_rules());
  const auto read = [&](const char* table) {
    RuleTable rows;
    for (const auto& row : py::cast<std::vector<std::string>>(rules[table])) rows.push_back(parse_rule(row));
    return rows;
  };
  return set_attention({read("compute"), read("parameters"), read("gradients"), read("optimizer")});
}

SessionOptions session_options(const std::string& dtype, const std::map<std::string, int64_t>& mesh, const py::object& rules, int threads) {
  return {.dtype = compute_dtype(dtype), .mesh = make_mesh(mesh), .rules = make_rules(rules), .threads = threads, .world = joined_world()};
}

double expert_rows_factor(double factor) {
  if (!(factor >= 1)) throw UserError(concat_text("expert_rows_factor is ", factor, "; expected at least 1"));
  return factor;
}

py::list traffic_list(const std::vector<AxisTraffic>& traffic) {
  py::list list;
  for (const AxisTraffic& t : traffic) {
    list.append(py::dict(py::arg("collective") = t.op, py::arg("axes") = t.axes, py::arg("calls") = t.calls,
                         py::arg("bytes") = t.bytes_sent, py::arg("most_bytes") = t.most_bytes_sent));
  }
  return list;
}

OptimizerConfig optimizer_config(const py::dict& fields) {
  OptimizerConfig config;
  const auto number = [&](const char* key, double& value) {
    if (fields.contains(key)) value = py::cast<double>(fields[key]);
  };
  if (fields.contains("kind")) config.kind = py::cast<std::string>(fields["kind"]);
  number("beta1", config.beta1);
  number("beta2", config.beta2);
  number("eps", config.eps);
  number("weight_decay", config.weight_decay);
  number("momentum", config.momentum);
  number("clip", config.clip);
  return config;
}

LossTerms loss_terms(const py::dict& fields) {
  LossTerms terms;
  const auto number = [&](const char* key, double& value) {
    if (fields.contains(key)) value = py::cast<double>(fields[key]);
  };
  number("mtp", terms.mtp);
  number("load_balance", terms.balance);
  number("sequence_balance", terms.sequence_balance);
  number("router_z", terms.router_z);
  number("selection_bias_rate", terms.selection_bias_rate);
  if (fields.contains("expert_load")) terms.expert_load = py::cast<bool>(fields["expert_load"]);
  return terms;
}

}  // namespace mw
