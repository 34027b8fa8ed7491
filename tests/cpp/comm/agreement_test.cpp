#include "comm/agreement.h"

#include <mutex>

#include "base/error.h"
#include "comm/threads.h"
#include "runner.h"

namespace mw {
namespace {

TEST(agreement, ranks_that_agree_pass) {
  ThreadWorld world(3);
  world.run([&](Communicator& comm) { check_agreement(comm, everyone(comm), {{"lr", "0.1"}, {"batch", ""}}, "they differ"); });
}

TEST(agreement, the_error_names_the_keys_that_differ_and_both_ranks_on_every_rank) {
  ThreadWorld world(3);
  int told = 0;
  const auto run = [&] {
    world.run([&](Communicator& comm) {
      std::map<std::string, std::string> facts{{"batch", "8"}, {"lr", comm.rank() == 2 ? "0.2" : "0.1"}, {"seed", "0"}};
      if (comm.rank() == 1) facts["extra"] = "x";
      try {
        check_agreement(comm, everyone(comm), facts, "they differ");
      } catch (const UserError&) {
        static std::mutex mutex;
        const std::lock_guard lock(mutex);
        ++told;
        throw;
      }
    });
  };
  EXPECT_ERROR(UserError, { run(); }, "they differ", "lr: 0.1 on rank 0, 0.2 on rank 2", "extra: nothing on rank 0, x on rank 1");
  EXPECT_EQ(told, 3);
  try {
    run();
  } catch (const UserError& e) {
    EXPECT(std::string(e.what()).find("batch") == std::string::npos);
  }
}

TEST(agreement, texts_of_any_length_come_in_order) {
  ThreadWorld world(3);
  world.run([&](Communicator& comm) {
    const std::vector<std::string> texts = gather_texts(comm, everyone(comm), std::string(static_cast<size_t>(comm.rank()), 'x'));
    EXPECT(texts == (std::vector<std::string>{"", "x", "xx"}));
  });
}

}  // namespace
}  // namespace mw
