#include "exec/cpu/isa.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "runner.h"

namespace mw {
namespace {

// Sets MESHWRIGHT_ISA for one test and restores it.
class IsaVariable {
 public:
  explicit IsaVariable(const char* value) {
    if (const char* old = std::getenv("MESHWRIGHT_ISA")) old_ = old;
    setenv("MESHWRIGHT_ISA", value, 1);
  }
  ~IsaVariable() { old_.empty() ? unsetenv("MESHWRIGHT_ISA") : setenv("MESHWRIGHT_ISA", old_.c_str(), 1); }

 private:
  std::string old_;
};

TEST(isa, environment_forces_a_lower_one) {
  IsaVariable variable("avx2");
  EXPECT(chosen_isa() == Isa::kAvx2);
}

TEST(isa, empty_environment_means_the_best) {
  IsaVariable variable("");
  EXPECT(chosen_isa() == available_isas().back());
}

TEST(isa, unknown_name_is_an_error) {
  IsaVariable variable("avx51");
  EXPECT_ERROR(UserError, { chosen_isa(); }, "MESHWRIGHT_ISA", "avx51", "did you mean 'avx512'");
}

TEST(isa, names_round_trip) {
  for (Isa isa : available_isas()) EXPECT(available_isa(isa_name(isa)) == isa && parse_isa(isa_name(isa)) == isa);
}

}  // namespace
}  // namespace mw
