#include "exec/memory.h"

#include <algorithm>

#include "base/error.h"

namespace mw {

void KeptStore::ensure(const std::vector<Buffer>& buffers) {
  int64_t bytes = 0;
  for (const Buffer& buffer : buffers) {
    const Entry* known = find(buffer.name);
    if (!known) bytes += buffer.bytes;
    MW_CHECK(!known || known->buffer.type == buffer.type, "'", buffer.name, "' is kept as ", to_string(known->buffer.type),
             " but planned as ", to_string(buffer.type));
  }
  const auto arena = std::make_shared<Arena>(bytes);
  std::byte* next = arena->data();
  for (const Buffer& buffer : buffers) {
    const auto [at, added] = entries_.emplace(buffer.name, Entry{buffer, next, arena});
    if (added) next += buffer.bytes;
  }
}

void KeptStore::erase_prefix(const std::string& prefix) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first.compare(0, prefix.size(), prefix) == 0; });
}

const KeptStore::Entry* KeptStore::find(const std::string& name) const {
  const auto at = entries_.find(name);
  return at == entries_.end() ? nullptr : &at->second;
}

const KeptStore::Entry& KeptStore::get(const std::string& name) const {
  if (const Entry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const auto& [known, entry] : entries_) names.push_back(known);
  throw UserError("there is no kept buffer '" + name + "'" + did_you_mean(name, names));
}

int64_t KeptStore::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, entry] : entries_) bytes += entry.buffer.bytes;
  return bytes;
}

void RankMemory::reserve(const Plan& plan) {
  kept.ensure(plan.kept);
  const auto grow = [](Arena& arena, int64_t bytes) {
    if (arena.bytes() >= bytes) return;
    arena = Arena();  // the old one goes first: both need not fit
    arena = Arena(bytes);
  };
  grow(scratch, plan.scratch_bytes);
  grow(carried, plan.carried_bytes);
  grow(host, plan.host_bytes);
  grow(results, plan.result_bytes);
}

int64_t RankMemory::bytes() const { return kept.bytes() + scratch.bytes() + carried.bytes() + results.bytes(); }

const Buffer* find_buffer(const std::vector<Buffer>& buffers, const std::string& name) {
  const auto at = std::find_if(buffers.begin(), buffers.end(), [&](const Buffer& b) { return b.name == name; });
  return at == buffers.end() ? nullptr : &*at;
}

}  // namespace mw
