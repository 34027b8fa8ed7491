// Whether ranks agree on what they were told.
//
//   check_agreement(comm, everyone, {{"lr", "0.001"}, {"batch", "8"}}, "the ranks of this run were given different settings");
#pragma once
#include <map>
#include <string>

#include "comm/communicator.h"

namespace mw {

// UserError on every rank of the group: `what`, then the keys that differ, each with the value of the group's first rank and of the first
// one that differs. One small exchange where all agree.
void check_agreement(Communicator& comm, const Group& group, const std::map<std::string, std::string>& facts, const std::string& what);

// Everyone's text, in the order of the group.
std::vector<std::string> gather_texts(Communicator& comm, const Group& group, const std::string& text);

}  // namespace mw
