// Follows the output file of a run's ServerApp into the run's log. Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "base/file.h"
#include "base/ids.h"
#include "superlink/engine.h"

namespace umbel::superlink {

class RunOutput {
 public:
  /// offset  bytes of the file at `path` that are in the log already. A file that is not there yet
  ///         is made.
  RunOutput(Engine& engine, RunId run_id, TaskId task_id, const std::string& path, uint64_t offset);

  /// Takes what has come since. Text is cut only between characters, unless it is the last of it.
  void Drain(bool to_the_end);
  /// The last line that was not empty.
  std::string last_line() const;
  /// Whether the file ends as that of a ServerApp that ended well but could not tell its SuperLink:
  /// stock Flower tries that once, then exits with status 0 as if it had been heard.
  bool EndsUnheard() const;

 private:
  Engine& engine_;
  const RunId run_id_;
  const TaskId task_id_;
  const Fd file_;
  mutable std::mutex mutex_;
  uint64_t offset_;
  std::string recent_;
};

}  // namespace umbel::superlink
