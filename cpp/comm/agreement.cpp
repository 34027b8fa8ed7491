#include "comm/agreement.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/xxhash64.h"

namespace mw {
namespace {

constexpr size_t kMostKeys = 8, kMostText = 80;  // of a message

// Length before text: no two maps have the same bytes.
std::string packed(const std::map<std::string, std::string>& facts) {
  std::string text;
  for (const auto& [key, value] : facts) {
    for (const std::string& part : {key, value}) text += std::to_string(part.size()) + ":" + part;
  }
  return text;
}

std::map<std::string, std::string> unpacked(const std::string& text) {
  std::map<std::string, std::string> facts;
  size_t at = 0;
  const auto part = [&] {
    const size_t colon = text.find(':', at), size = std::stoul(text.substr(at, colon - at));
    at = colon + 1 + size;
    return text.substr(colon + 1, size);
  };
  while (at < text.size()) {
    const std::string key = part();
    facts[key] = part();
  }
  return facts;
}

std::string shown(const std::map<std::string, std::string>& facts, const std::string& key) {
  const auto found = facts.find(key);
  if (found == facts.end()) return "nothing";
  return found->second.size() <= kMostText ? found->second : found->second.substr(0, kMostText) + "...";
}

}  // namespace

std::vector<std::string> gather_texts(Communicator& comm, const Group& group, const std::string& text) {
  const auto members = static_cast<size_t>(group.size());
  const auto mine = static_cast<int64_t>(text.size());
  std::vector<int64_t> sizes(members);
  comm.all_gather(group, &mine, sizes.data(), sizeof mine);
  const std::vector<int64_t> in_bytes(members, mine);
  std::string in, out(static_cast<size_t>(std::accumulate(sizes.begin(), sizes.end(), int64_t{0})), '\0');
  for (size_t i = 0; i < members; ++i) in += text;
  comm.all_to_all_v(group, in.data(), in_bytes.data(), out.data(), sizes.data());
  std::vector<std::string> texts;
  size_t at = 0;
  for (const int64_t size : sizes) {
    texts.push_back(out.substr(at, static_cast<size_t>(size)));
    at += static_cast<size_t>(size);
  }
  return texts;
}

void check_agreement(Communicator& comm, const Group& group, const std::map<std::string, std::string>& facts, const std::string& what) {
  const std::string text = packed(facts);
  const uint64_t hash = xxhash64(std::as_bytes(std::span(text)));
  std::vector<uint64_t> hashes(static_cast<size_t>(group.size()));
  comm.all_gather(group, &hash, hashes.data(), sizeof hash);
  if (std::all_of(hashes.begin(), hashes.end(), [&](uint64_t h) { return h == hashes[0]; })) return;
  std::vector<std::map<std::string, std::string>> all;
  for (const std::string& one : gather_texts(comm, group, text)) all.push_back(unpacked(one));
  std::map<std::string, std::string> keys;
  for (const auto& one : all) keys.insert(one.begin(), one.end());
  std::string message = what;
  size_t named = 0;
  for (const auto& [key, value] : keys) {
    for (size_t member = 1; member < all.size(); ++member) {
      const auto same = [&](const auto& one) {
        return one.count(key) == all[0].count(key) && (!one.count(key) || one.at(key) == all[0].at(key));
      };
      if (same(all[member])) continue;
      if (named++ < kMostKeys) {
        message += concat_text("\n  ", key, ": ", shown(all[0], key), " on rank ", group.ranks[0], ", ", shown(all[member], key),
                               " on rank ", group.ranks[member]);
      }
      break;
    }
  }
  if (named > kMostKeys) message += concat_text("\n  and ", named - kMostKeys, " more");
  throw UserError(message);
}

}  // namespace mw
