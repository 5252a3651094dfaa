// One Python worker of docs/worker-protocol.md: started, confined, loaded, forked from. Belongs to
// the io_context's one thread; blocking work goes to a pool.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "process/cgroup.h"
#include "process/confined.h"
#include "supernode/host.h"
#include "supernode/hosts/app_output.h"
#include "supernode/hosts/frame_socket.h"
#include "supernode/hosts/worker_wire.h"
#include "supernode/limits.h"

namespace boost::asio {
class thread_pool;
}

namespace umbel::supernode {

struct WorkerOptions {
  std::string python;                    // path of the interpreter
  std::string sources;                   // DIR of the protocol's command line
  std::vector<std::string> environment;  // all that user code sees
  Limits limits;
  uint32_t uid = 0;                   // user code runs as this user and group; 0: as ourselves
  std::optional<process::View> view;  // none: it sees what we see
};

/// A process that serves a job socket: a fork, or the worker itself.
class WorkerChild {
 public:
  WorkerChild(const boost::asio::any_io_executor& executor, Fd socket)
      : job(executor, std::move(socket)) {}

  uint64_t id = 0;
  pid_t pid = 0;  // as the worker says; once it was found, as we see it
  Fd pidfd;       // of a process that is the worker's own child; else invalid
  FrameSocket job;
  std::shared_ptr<AppOutput> output;
  process::Cgroup group;      // invalid where there are none
  std::optional<int> status;  // of waitpid, once it has ended
  bool ended = false;
};

class WorkerProcess : public std::enable_shared_from_this<WorkerProcess> {
 public:
  /// groups  null: no cgroups here.
  static Result<std::shared_ptr<WorkerProcess>> Start(const boost::asio::any_io_executor& executor,
                                                      boost::asio::thread_pool& pool,
                                                      const WorkerOptions& options,
                                                      process::CgroupParent* groups);
  ~WorkerProcess();

  /// Waits until it has imported Flower.
  /// errors  kFailedPrecondition: this Python is unfit (the message says what it lacks);
  ///         kUnavailable: it ended.
  Task<Status> BecomeReady();
  /// What Load found: where to run children, or the error every message gets.
  struct Loading {
    bool ok = false;
    bool fork = false;
    std::string why;
    int64_t code = 0;
    std::string reason;
  };
  /// Once for each worker.
  /// environment  the app's, of Environments::Of.
  /// errors  kUnavailable: it ended meanwhile.
  Task<Result<Loading>> Load(const App& app, const std::string& environment);
  /// A child in its own group, not yet given anything.
  /// serve   not a fork but this very process, which takes nothing else from then on.
  /// errors  kUnavailable: it ended, or could not fork.
  Task<Result<std::shared_ptr<WorkerChild>>> MakeChild(bool serve, std::string tag);
  /// Waits until the child's end is known, at most `limit`.
  Task<void> AwaitEnd(const WorkerChild& child, std::chrono::milliseconds limit);
  /// Ends a child with all it has started.
  Task<void> KillChild(WorkerChild& child);
  /// The same of the worker, which may end by itself for `first`. Returns when it has ended.
  Task<void> Kill(std::chrono::milliseconds first = {});

  bool alive() const { return !gone_; }
  /// Of waitpid, once it has ended.
  std::optional<int> status() const { return status_; }
  pid_t pid() const { return child_.pid; }
  size_t children() const { return children_.size(); }

 private:
  WorkerProcess(const boost::asio::any_io_executor& executor, boost::asio::thread_pool& pool,
                const WorkerOptions& options, process::CgroupParent* groups, process::Child child,
                Fd control);
  void Begin(Fd output);
  Task<void> ReadControl();
  void Take(ControlFrame frame);
  Task<Status> Await(std::function<bool()> condition, std::chrono::milliseconds limit,
                     std::string_view what);
  Result<process::Cgroup> MakeGroup(std::string_view kind, uint64_t id);
  Status CheckChild(WorkerChild& child, bool serve) const;

  struct Waiting;
  const std::unique_ptr<Waiting> waiting_;
  boost::asio::thread_pool& pool_;
  const WorkerOptions& options_;
  process::CgroupParent* const groups_;
  process::Child child_;
  process::Cgroup group_;
  FrameSocket control_;
  std::shared_ptr<AppOutput> output_;
  std::map<uint64_t, std::shared_ptr<WorkerChild>> children_;  // not yet ended
  std::optional<Ready> ready_;
  std::optional<Loading> loading_;
  std::string unfit_;
  uint64_t next_id_ = 0;
  std::optional<int> status_;
  bool gone_ = false;   // nothing more is asked of it
  bool ended_ = false;  // it is no more
};

}  // namespace umbel::supernode
