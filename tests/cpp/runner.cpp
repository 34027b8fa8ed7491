#include "runner.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace mw::testing {
namespace {

struct TestCase {
  std::string name;
  Tag tag;
  std::function<void()> body;
};

std::vector<TestCase>& all_tests() {
  static std::vector<TestCase> tests;
  return tests;
}

}  // namespace

bool register_test(const char* room, const char* name, Tag tag, std::function<void()> body) {
  all_tests().push_back({std::string(room) + "." + name, tag, std::move(body)});
  return true;
}

void fail(const char* file, int line, const std::string& text) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + text);
}

}  // namespace mw::testing

int main(int argc, char** argv) {
  using namespace mw::testing;
  bool fast_only = false, list = false;
  std::vector<std::string> filters;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--fast"))
      fast_only = true;
    else if (!std::strcmp(argv[i], "--list"))
      list = true;
    else
      filters.emplace_back(argv[i]);
  }
  const bool under_mpirun = std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
  int passed = 0, failed = 0;
  for (const TestCase& test : all_tests()) {
    bool chosen = filters.empty();
    for (const std::string& filter : filters) chosen |= test.name.find(filter) != std::string::npos;
    if (!chosen || (fast_only && test.tag == Tag::kSlow) || (!list && (test.tag == Tag::kMpi) != under_mpirun)) continue;
    if (list) {
      std::printf("%s%s\n", test.name.c_str(), test.tag == Tag::kSlow ? " (slow)" : test.tag == Tag::kMpi ? " (mpi)" : "");
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    try {
      test.body();
      ++passed;
    } catch (const std::exception& e) {
      ++failed;
      std::printf("FAILED %s\n  %s\n", test.name.c_str(), e.what());
      if (under_mpirun) {  // the others may wait for this rank: mpirun ends them
        std::fflush(stdout);
        _exit(1);
      }
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (seconds > 1.0) std::printf("slow: %s took %.1f s\n", test.name.c_str(), seconds);
  }
  if (list) return 0;
  if (passed + failed == 0) std::printf("no test matches\n");
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed + failed == 0;
}
