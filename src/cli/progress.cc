#include "cli/progress.h"

#include <fmt/core.h>

#include <cstdio>
#include <utility>

namespace umbel::cli {

Progress::Progress(std::string what)
    : what_(std::move(what)), thread_([this](std::stop_token stop) { Run(std::move(stop)); }) {}

Progress::~Progress() {
  thread_.request_stop();
  thread_.join();
}

void Progress::Say(const std::string& what) {
  {
    const std::lock_guard lock(mutex_);
    what_ = what;
  }
  changed_.notify_all();
}

void Progress::Run(std::stop_token stop) {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, stop, kSilence, [] { return false; }) || stop.stop_requested())
    return;
  while (!stop.stop_requested()) {
    const auto spent =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
    fmt::print(stderr, "{} ({} s)\n", what_, spent.count());
    said_ = what_;
    changed_.wait_for(lock, stop, kAgain, [this] { return what_ != said_; });
  }
}

}  // namespace umbel::cli
