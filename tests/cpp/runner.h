// A small test runner: register, check, filter, tags, one summary line.
//
//   TEST(dtype, bf16_rounds_to_even) { EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80); }
//   SLOW_TEST(loader, epoch_is_a_permutation) { ... }
//   MPI_TEST(mpi, ranks_sum) { ... }    // runs when mpirun started the program, once in every process, and then nothing else does
//   meshwright_tests [--fast] [--list] [substring of "room.name" ...]
#pragma once
#include <cmath>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace mw::testing {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Tag { kFast, kSlow, kMpi };
bool register_test(const char* room, const char* name, Tag tag, std::function<void()> body);
// A test made at run time, one per case of a list: full name is "room.name".
[[noreturn]] void fail(const char* file, int line, const std::string& text);

template <typename T>
std::string show(const T& value) {
  if constexpr (requires(std::ostream& o) { o << value; }) {
    std::ostringstream out;
    out.precision(12);
    out << value;
    return out.str();
  } else {
    return "(value)";
  }
}

template <typename A, typename B>
void expect_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (!(a == b)) fail(file, line, std::string(text) + ": " + show(a) + " is not " + show(b));
}

// Runs `body`, which must throw E with a message that contains every one of `parts`.
template <typename E, typename Body, typename... Parts>
void expect_throw(Body&& body, const char* file, int line, const Parts&... parts) {
  try {
    body();
  } catch (const E& e) {
    const std::string what = e.what();
    for (const std::string& part : {std::string(parts)...}) {
      if (what.find(part) == std::string::npos) fail(file, line, "message lacks '" + part + "': " + what);
    }
    return;
  }
  fail(file, line, "no error was thrown");
}

}  // namespace mw::testing

#define MW_TEST_(room, name, tag)                                                                                                        \
  static void test_##room##_##name();                                                                                                    \
  [[maybe_unused]] static const bool registered_##room##_##name = ::mw::testing::register_test(#room, #name, tag, test_##room##_##name); \
  static void test_##room##_##name()
#define TEST(room, name) MW_TEST_(room, name, ::mw::testing::Tag::kFast)
#define SLOW_TEST(room, name) MW_TEST_(room, name, ::mw::testing::Tag::kSlow)
#define MPI_TEST(room, name) MW_TEST_(room, name, ::mw::testing::Tag::kMpi)
#define EXPECT(condition)                                                              \
  do {                                                                                 \
    if (!(condition)) ::mw::testing::fail(__FILE__, __LINE__, #condition " is false"); \
  } while (0)
#define EXPECT_EQ(a, b) ::mw::testing::expect_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
#define EXPECT_NEAR(a, b, tolerance)                                                                                                  \
  do {                                                                                                                                \
    const double mw_a = (a), mw_b = (b);                                                                                              \
    if (!(std::abs(mw_a - mw_b) <= (tolerance)))                                                                                      \
      ::mw::testing::fail(                                                                                                            \
          __FILE__, __LINE__,                                                                                                         \
          #a " and " #b ": " + ::mw::testing::show(mw_a) + " and " + ::mw::testing::show(mw_b) + " differ by more than " #tolerance); \
  } while (0)
// EXPECT_ERROR(UserError, { parse("x"); }, "unknown", "did you mean");
#define EXPECT_ERROR(type, body, ...) ::mw::testing::expect_throw<type>([&] body, __FILE__, __LINE__, __VA_ARGS__)
