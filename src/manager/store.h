// The manager's database: projects, services, rounds, words. Writes are short transactions, one
// after the other; reads have a connection of their own. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/wake.h"
#include "manager/model.h"
#include "store/sqlite.h"

namespace umbel::manager {

using store::Connection;

class Store {
 public:
  /// path  the database file; made, and brought to the newest version.
  static Result<std::unique_ptr<Store>> Open(const std::string& path);

  /// `change` in one transaction, undone when it fails. Wakes those who watch.
  Status Write(const std::function<Status(Connection&)>& change);
  template <typename F>
  auto Read(F&& look) {
    const std::lock_guard lock(read_mutex_);
    return look(*reader_);
  }

  /// Grows with each change.
  uint64_t version() const;
  /// Woken once, at the next change after `seen`; at once when that has been.
  void Watch(uint64_t seen, const std::shared_ptr<Wakeable>& waker);
  void WakeAll();

  /// For tests: asked before each commit; false undoes it, and the process is dead as far as the
  /// database can tell.
  std::function<bool()> alive = [] { return true; };

 private:
  Store() = default;

  std::mutex write_mutex_;
  std::unique_ptr<Connection> writer_;
  std::mutex read_mutex_;
  std::unique_ptr<Connection> reader_;
  mutable std::mutex watch_mutex_;
  uint64_t version_ = 1;
  WaitList waiting_;
};

// Rows. Within Write, or Read where they only look.

Status InsertProject(Connection& db, const Project& project);
Status UpdateProject(Connection& db, const Project& project);
/// With its timeline, observer's log and rounds; services and apps must be gone.
Status DeleteProject(Connection& db, const std::string& id);
Result<std::optional<Project>> FindProject(Connection& db, std::string_view id);
/// In the order of submission.
Result<std::vector<Project>> ListProjects(Connection& db);

Status InsertApp(Connection& db, const App& app);
Status DeleteApp(Connection& db, const std::string& id);
Result<std::vector<App>> ListApps(Connection& db);

/// errors  kAlreadyExists: a living service has this name, or this port.
Status PutService(Connection& db, const Service& service);
Status DeleteService(Connection& db, const std::string& id);
/// gone  also those that are.
Result<std::vector<Service>> ListServices(Connection& db, bool gone);
Status PutInstance(Connection& db, const Instance& instance);
Status DeleteInstance(Connection& db, const std::string& service_id, uint32_t number);
Result<std::vector<Instance>> ListInstances(Connection& db);

/// entry.sequence is ignored.
Status AddEntry(Connection& db, const std::string& project, const Entry& entry);
Result<std::vector<Entry>> ListEntries(Connection& db, std::string_view project, uint64_t after,
                                       uint64_t limit);
/// The newest of this stage and level.
Result<std::optional<std::string>> LastEntry(Connection& db, std::string_view project, Stage stage,
                                             Level level);

/// The observer's log, as one text.
Status AddWords(Connection& db, const std::string& project, const std::string& text);
Result<std::string> ReadWords(Connection& db, std::string_view project, uint64_t offset,
                              uint64_t limit);

Status PutRound(Connection& db, const std::string& project, const Round& round);
Result<std::optional<Round>> FindRound(Connection& db, std::string_view project, uint32_t run,
                                       uint32_t round);
Result<std::vector<Round>> ListRounds(Connection& db, std::string_view project, uint32_t run);

}  // namespace umbel::manager
