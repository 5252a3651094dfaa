// What a command is waiting for, said on stderr once it takes longer than people wait in silence.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace umbel::cli {

/// From its making to its end. What it says may be changed, by the thread that made it.
class Progress {
 public:
  static constexpr std::chrono::seconds kSilence{2};
  static constexpr std::chrono::seconds kAgain{30};

  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Said at once if something has been said; else when it is time.
  void Say(const std::string& what);

 private:
  void Run(std::stop_token stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::string what_;
  std::string said_;
  std::jthread thread_;
};

}  // namespace umbel::cli
