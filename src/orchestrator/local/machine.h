// What this machine lets a ground do with its instances. Looked at once; then any thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "orchestrator/ground.h"
#include "process/cgroup.h"

namespace umbel::orchestrator {

class Machine {
 public:
  /// use_groups: false to go without control groups. Starts a process that does nothing, to see
  /// whether network, files and processes can be kept from it.
  explicit Machine(bool use_groups);

  bool bounds_memory() const { return groups_ && groups_->memory(); }
  bool bounds_processes() const { return groups_ && groups_->processes(); }
  bool bounds_cpu() const { return groups_ && groups_->cpu(); }
  bool uses_groups() const { return bounds_memory() || bounds_processes(); }
  /// Whether an instance can be without network and have a view of its own, or why not.
  const Status& isolation() const { return isolation_; }
  /// All of it, for people.
  const std::string& text() const { return text_; }

  /// Ends what is left in control groups of keepers (and others of ours) that are dead.
  void ClearStaleGroups() const;

 private:
  std::unique_ptr<process::CgroupParent> groups_;
  Status isolation_;
  std::string text_;
};

/// An n-th of this machine's memory, of which a fifth stays for all else, and of the space in
/// `folder`; but all its CPU, which unlike the others can be shared out twice without harm.
Resources ShareOfMachine(const std::string& folder, size_t n);

}  // namespace umbel::orchestrator
