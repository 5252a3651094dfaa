// ML repositories: fetched by git as a child process into mirrors, checked out at one commit. Any
// thread; those that want the same repository take turns.
#pragma once

#include <stop_token>
#include <string>

#include "base/result.h"
#include "manager/peers.h"

namespace umbel::manager {

/// root    folder of mirrors and checkouts; shared by projects.
/// commit  "": the one that the ref, or the remote's HEAD, stands for now.
/// errors  as Peers::Fetch.
Result<Checkout> FetchRepository(const std::string& root, const Sla& sla, const std::string& commit,
                                 const std::string& token_file, std::stop_token stop);

}  // namespace umbel::manager
