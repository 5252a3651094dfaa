#include "manager/jobs.h"

namespace umbel::manager {

std::any Jobs::RunAny(const std::string& name, std::function<std::any(std::stop_token)> work) {
  Reap();
  if (at_once_) return work({});
  const auto found = jobs_.find(name);
  if (found == jobs_.end()) {
    auto job = std::make_unique<Job>();
    Job* raw = job.get();
    raw->thread = std::jthread([raw, work = std::move(work), this](std::stop_token stop) {
      std::any result = work(std::move(stop));
      {
        const std::lock_guard lock(raw->mutex);
        raw->result = std::move(result);
        raw->done = true;
      }
      done_();
    });
    jobs_.emplace(name, std::move(job));
    return {};
  }
  std::any result;
  {
    const std::lock_guard lock(found->second->mutex);
    if (!found->second->done) return {};
    result = std::move(found->second->result);
  }
  jobs_.erase(found);  // joins a thread that has nothing left to do
  return result;
}

void Jobs::Cancel(std::string_view prefix) {
  for (auto it = jobs_.lower_bound(std::string(prefix));
       it != jobs_.end() && it->first.starts_with(prefix);) {
    it->second->thread.request_stop();
    ending_.push_back(std::move(it->second));
    it = jobs_.erase(it);
  }
}

void Jobs::Stop() {
  Cancel("");
  ending_.clear();
}

void Jobs::Reap() {
  const auto over = [](Job& job) {
    const std::lock_guard lock(job.mutex);
    return job.done;
  };
  std::erase_if(ending_, [&](const std::unique_ptr<Job>& job) { return over(*job); });
}

}  // namespace umbel::manager
