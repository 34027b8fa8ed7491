// The memory of one rank: kept buffers by name, shared by all Plans that name them, and the arenas for what lives shorter.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "exec/cpu/arena.h"
#include "ir/plan.h"

namespace mw {

// Kept buffers by name. Buffers of one Plan that do not exist yet are allocated together in one arena, zero-filled.
class KeptStore {
 public:
  struct Entry {
    Buffer buffer;
    std::byte* data = nullptr;
    std::shared_ptr<Arena> arena{};  // shared with the buffers allocated together
  };

  void ensure(const std::vector<Buffer>& buffers);
  // UserError naming the nearest when there is none.
  const Entry& get(const std::string& name) const;
  const Entry* find(const std::string& name) const;
  // Forgets buffers; an arena goes with the last of its buffers.
  void erase_prefix(const std::string& prefix);
  int64_t bytes() const;

 private:
  std::unordered_map<std::string, Entry> entries_;
};

struct RankMemory {
  KeptStore kept;
  Arena scratch, carried, results;
  Arena host;  // what is offloaded: a copy, since a CPU has one memory; counted apart
  // Grows the arenas to what `plan` needs; between pieces only.
  void reserve(const Plan& plan);
  int64_t bytes() const;  // without `host`
};

// Of a Plan's list; null when it has none of that name.
const Buffer* find_buffer(const std::vector<Buffer>& buffers, const std::string& name);

}  // namespace mw
