// Texts under tests/golden that a test's output must equal. MESHWRIGHT_WRITE_GOLDEN=1 writes them instead; read the difference before
// committing it. Tests run in the root of the source tree.
//
//   expect_golden("programs/tiny_forward.txt", program.to_text());
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "runner.h"

namespace mw::testing {

inline void expect_golden(const std::string& name, const std::string& text) {
  const std::string path = "tests/golden/" + name;
  if (const char* write = std::getenv("MESHWRIGHT_WRITE_GOLDEN"); write && std::string(write) == "1") {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    return;
  }
  std::ifstream in(path, std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(in), {}};
  if (text == expected) return;
  size_t at = 0;
  while (at < text.size() && at < expected.size() && text[at] == expected[at]) ++at;
  const auto line_at = [at](const std::string& all) {
    const size_t start = at == 0 ? 0 : all.rfind('\n', at - 1) + 1;  // npos + 1 is 0
    return start >= all.size() ? std::string("(end)") : all.substr(start, all.find('\n', start) - start);
  };
  fail(
      __FILE__, __LINE__,
      path + " differs (MESHWRIGHT_WRITE_GOLDEN=1 writes it anew); expected\n    " + line_at(expected) + "\n  found\n    " + line_at(text));
}

}  // namespace mw::testing
