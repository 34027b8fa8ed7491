// Errors. UserError: something a person gave us is wrong (config, shape, file); it says what was expected, what was found,
// where, and the nearest valid choice. InternalError: an invariant of ours is broken. Neither ever aborts the host.
//
//   throw UserError("seq is 4096 but the model allows at most 2048");
//   MW_CHECK(offset <= size, "slice past the end of ", name);
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace mw {

class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

template <typename... Parts>
std::string concat_text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// The candidate that a person who typed `name` most likely meant, or "" when none is near.
std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

// " (did you mean 'x'?)" or "".
std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace mw

#define MW_CHECK(condition, ...)                                                                                                           \
  do {                                                                                                                                     \
    if (!(condition))                                                                                                                      \
      throw ::mw::InternalError(::mw::concat_text("broken invariant at ", __FILE__, ":", __LINE__, " (" #condition "): ", ##__VA_ARGS__)); \
  } while (0)
