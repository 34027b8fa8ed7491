#include "session/capture.h"

#include <map>

#include "base/error.h"

namespace mw {

bool matches_pattern(std::string_view pattern, std::string_view text) {
  // Greedy with one point of return: linear but for the last star.
  size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void add_captures(Program& program, const std::vector<std::string>& patterns) {
  std::map<std::string, ValueId> last;  // by scope
  for (const Op& op : program.ops) {
    if (!op.results.empty()) last[program.scopes[static_cast<size_t>(op.scope)]] = op.results[0];
  }
  for (const std::string& pattern : patterns) {
    bool found = false;
    for (const auto& [scope, value] : last) {
      if (scope.empty() || !matches_pattern(pattern, scope)) continue;
      found = true;
      if (!program.find_output(scope)) program.outputs.push_back({scope, OutputKind::kResult, value});
    }
    if (found) continue;
    std::vector<std::string> scopes;
    for (const auto& [scope, value] : last) scopes.push_back(scope);
    throw UserError("capture: '" + pattern + "' matches no scope of the model" + did_you_mean(pattern, scopes));
  }
}

}  // namespace mw
