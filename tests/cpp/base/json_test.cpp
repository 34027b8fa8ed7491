#include "base/json.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "runner.h"

namespace mw {

TEST(base, json_keeps_exact_integers_and_nesting) {
  const nlohmann::json value = parse_json_strict(R"({"a": [1, {"b": [true, null, "x"]}], "big": 18446744073709551615, "f": -2.5} )", "t");
  EXPECT_EQ(value["big"].get<uint64_t>(), 18446744073709551615ull);
  EXPECT(value["big"].is_number_unsigned());
  EXPECT_EQ(value["a"][1]["b"][2].get<std::string>(), "x");
  EXPECT_EQ(value["f"].get<double>(), -2.5);
  EXPECT_EQ(parse_json_strict("3", "t").get<int>(), 3);
}

TEST(base, json_rejects_with_a_position) {
  EXPECT_ERROR(UserError, { parse_json_strict("{\"a\": 1,\n \"a\": 2}", "run.json"); }, "run.json, line 2, column 4: key 'a' occurs twice");
  EXPECT_ERROR(UserError, { parse_json_strict("{\"a\": 1,}", "run.json"); }, "run.json, line 1, column 9", "syntax error");
  EXPECT_ERROR(UserError, { parse_json_strict("", "run.json"); }, "found nothing");
  EXPECT_ERROR(UserError, { parse_json_strict("\xef\xbb\xbf{}", "run.json"); }, "byte order mark");
  EXPECT_ERROR(UserError, { parse_json_strict("{} {}", "run.json"); }, "line 1, column 4");
  EXPECT_ERROR(UserError, { parse_json_strict("[1e999]", "run.json"); }, "number overflow");
  EXPECT_ERROR(UserError, { parse_json_strict("[NaN]", "run.json"); }, "line 1");
  EXPECT_ERROR(UserError, { parse_json_strict("// x\n1", "run.json"); }, "line 1");
  EXPECT_ERROR(UserError, { parse_json_strict("\"\xff\"", "run.json"); }, "UTF-8");
  EXPECT_ERROR(UserError, { parse_json_strict("\"\\ud800\"", "run.json"); }, "surrogate");
}

TEST(base, json_nesting_is_bounded) {
  EXPECT_EQ(parse_json_strict("[[[]]]", "t", 3).size(), size_t{1});
  EXPECT_ERROR(UserError, { parse_json_strict("[[[]]]", "t", 2); }, "nested deeper than 2 levels");
  EXPECT_ERROR(UserError, { parse_json_strict(std::string(1000000, '['), "t"); }, "nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_ERROR(UserError, { parse_json_strict(objects, "t"); }, "nested deeper");
}

TEST(base, error_text_is_always_utf8) {
  EXPECT_EQ(printable(std::string_view("a\0\n\xff\xc3\xa9", 6)), "a\\x00\\x0a\\xff\xc3\xa9");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  for (const char* bad : {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3", "\x80"}) EXPECT(!is_valid_utf8(bad));
  EXPECT(is_valid_utf8("\xf0\x9f\x98\x80 \xed\x9f\xbf \xe2\x82\xac"));
  try {
    parse_json_strict("{\"a\": \"" + std::string(100000, 'x') + "\xff\"}", "t");
    EXPECT(false);
  } catch (const UserError& e) {
    EXPECT(std::string(e.what()).size() < 500);
    EXPECT(is_valid_utf8(e.what()));
  }
}

TEST(base, read_file_names_path_and_reason) {
  EXPECT_ERROR(UserError, { read_file("/no/such/file.json", 10); }, "/no/such/file.json", "cannot open", "No such file");
  EXPECT_ERROR(UserError, { read_file("/", 10); }, "expected a regular file");
  EXPECT_ERROR(UserError, { read_file("/proc/self/exe", 10); }, "at most 10 are expected");
  EXPECT_ERROR(UserError, { read_file(std::string("a\0b", 3), 10); }, "a\\x00b", "NUL");
}

}  // namespace mw
