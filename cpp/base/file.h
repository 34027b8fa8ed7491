// Small whole files, and errors that carry the path and the system's reason.
#pragma once
#include <cstdint>
#include <string>

namespace mw {

// "PATH: cannot open: No such file or directory". `error` is an errno value.
std::string system_problem(const std::string& path, const std::string& action, int error);

// The bytes of a regular file; UserError when it is missing, not a regular file, unreadable, or larger than `max_bytes`.
std::string read_file(const std::string& path, int64_t max_bytes);

}  // namespace mw
