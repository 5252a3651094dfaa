#include "supernode/hosts/process_host.h"

#include <list>

namespace umbel::supernode {
namespace {

class ProcessHost final : public Host {
 public:
  explicit ProcessHost(TaskTable& tasks) : tasks_(tasks) {}

  std::string_view name() const override { return "process"; }
  void Prepare(std::shared_ptr<const RunInfo>) override {}  // a SuperExec begins with a task

  Task<Result<Outcome>> Run(const Job& job) override {
    if (stopping_) co_return Fail(Code::kCancelled, "the node is stopping");
    const AppTaskPtr task = tasks_.Offer(job);
    const auto mine = jobs_.insert(jobs_.end(), {job.run->run_id, task});
    Result<Outcome> outcome = co_await tasks_.Finish(task, job);
    jobs_.erase(mine);
    co_return outcome;
  }

  void Drop(RunId run_id) override {
    for (const Offered& job : jobs_)
      if (job.run_id == run_id) tasks_.Cancel(*job.task);
  }

  // The processes are not ours: they end when their next call is answered 401.
  Task<void> Stop(std::chrono::milliseconds) override {
    stopping_ = true;
    for (const Offered& job : jobs_) tasks_.Cancel(*job.task);
    co_return;
  }

  std::string Describe() const override {
    size_t running = 0;
    for (const Offered& job : jobs_)
      if (job.task->state == TaskState::kRunning) ++running;
    return fmt::format("process: {} running, {} waiting for a SuperExec", running,
                       jobs_.size() - running);
  }

 private:
  struct Offered {
    RunId run_id;
    AppTaskPtr task;
  };

  TaskTable& tasks_;
  std::list<Offered> jobs_;
  bool stopping_ = false;
};

}  // namespace

std::unique_ptr<Host> MakeProcessHost(TaskTable& tasks) {
  return std::make_unique<ProcessHost>(tasks);
}

}  // namespace umbel::supernode
