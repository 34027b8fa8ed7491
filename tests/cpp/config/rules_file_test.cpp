#include "config/rules_file.h"

#include "base/error.h"
#include "passes/check_rules.h"
#include "runner.h"

namespace mw {
namespace {

const std::string kFolder = "configs/rules";

std::string tables(const std::string& compute, const std::string& more = R"("parameters": [], "gradients": [], "optimizer": [])") {
  return R"({"compute": )" + compute + ", " + more + "}";
}

}  // namespace

TEST(rules_file, every_layout_is_here) {
  const std::vector<std::string> names = rules_names(kFolder);
  EXPECT((names ==
          std::vector<std::string>{"3d", "4d", "cp", "ddp", "default", "ep", "fsdp", "hsdp", "tp", "tp_sp", "zero1", "zero2", "zero3"}));
  for (const std::string& name : names) {
    const Rules rules = find_rules(name, kFolder);
    for (const RuleTable* table : {&rules.compute, &rules.parameters, &rules.gradients, &rules.optimizer}) EXPECT(table->size() <= 20);
    check_rules(rules, Mesh());
  }
}

TEST(rules_file, zero_levels_add_data_to_the_default) {
  const RuleRow over_data{"*", "data", false};
  Rules expected = default_rules();
  expected.optimizer.push_back(over_data);
  EXPECT(find_rules("zero1", kFolder) == expected);
  expected.gradients.push_back(over_data);
  EXPECT(find_rules("zero2", kFolder) == expected);
  expected.parameters.push_back(over_data);
  EXPECT(find_rules("zero3", kFolder) == expected);
}

TEST(rules_file, errors) {
  EXPECT_ERROR(UserError, { find_rules("zero7", kFolder); }, "there are no rules 'zero7' (did you mean 'zero1'?); known: 3d, 4d, cp");
  EXPECT_ERROR(UserError, { find_rules("hsddp", kFolder); }, "did you mean 'hsdp'?");
  EXPECT_ERROR(UserError, { parse_rules("[]", "mine.json"); }, "mine.json: expected an object {...}, found []");
  EXPECT_ERROR(UserError, { parse_rules(R"({"compute": []})", "mine.json"); }, "mine.json: the table 'parameters' is missing");
  EXPECT_ERROR(
      UserError, { parse_rules(tables("[]", R"("parameters": [], "gradients": [], "optimiser": [], "optimizer": [])"), "mine.json"); },
      "optimiser");
  EXPECT_ERROR(UserError, { parse_rules(tables("{}"), "mine.json"); }, "mine.json: compute: expected a list of rows");
  EXPECT_ERROR(UserError, { parse_rules(tables("[3]"), "mine.json"); }, "mine.json: compute");
  EXPECT_ERROR(
      UserError, { parse_rules(tables(R"(["batch:fspd"])"), "mine.json"); },
      "mine.json: compute: there is no mesh axis 'fspd' (did you mean 'fsdp'?)");
}

TEST(rules_file, dims_and_axes) {
  Rules rules = default_rules();
  rules.parameters.push_back(parse_rule("vocabulary:tensor"));
  EXPECT_ERROR(
      UserError, { check_rules(rules, Mesh()); }, "there is no dim 'vocabulary' (row 'vocabulary:tensor' of the table parameters)");
  rules = default_rules();
  rules.compute.push_back(parse_rule("batsh:data"));
  EXPECT_ERROR(UserError, { check_rules(rules, Mesh()); }, "did you mean 'batch'?");
  rules = default_rules();
  rules.compute.push_back(parse_rule("*:data"));
  EXPECT_ERROR(UserError, { check_rules(rules, Mesh()); }, "'*' may stand in parameters, gradients and optimizer only");
  EXPECT_ERROR(
      UserError, { check_rules(find_rules("fsdp", kFolder), Mesh({{"fsdp", 2}, {"tensor", 4}})); },
      "shard nothing over the mesh axis 'tensor' of size 4, whose ranks would all do the same work; expected a row of the table "
      "compute such as 'kv_heads:tensor part'");
  check_rules(default_rules(), Mesh({{"data", 2}, {"fsdp", 2}, {"expert", 2}, {"context", 2}, {"tensor", 2}}));
  rules = default_rules();
  rules.compute.insert(rules.compute.begin(), parse_rule("seq:tensor"));
  EXPECT_ERROR(UserError, { check_rules(rules, Mesh()); }, "'seq:context' stands below 'seq:tensor' in the table compute");
  EXPECT_ERROR(UserError, { parse_rule("seq:context part"); }, "the axis context is taken whole");
}

}  // namespace mw
