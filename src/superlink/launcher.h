// Starts flwr-serverapp for pending runs, follows its output into the run's log, notices its end,
// and takes it over again after a restart. One thread of its own.
#pragma once

#include <memory>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "superlink/engine.h"
#include "superlink/options.h"

namespace umbel::superlink {

class Launcher {
 public:
  /// address    host:port that ServerApps dial.
  /// directory  where output, token and status files of each run go.
  static Result<std::unique_ptr<Launcher>> Start(const Options& options, Engine& engine,
                                                 std::string address, std::string directory,
                                                 std::string lock_file);
  virtual ~Launcher() = default;

  /// Something about tasks has changed: look again. Any thread; only schedules.
  virtual void Notify() = 0;
  /// Takes what the run's ServerApp has printed so far into its log. Any thread.
  virtual void Flush(RunId run_id) = 0;
  /// Stops the thread. ServerApps go on, to be taken over by the next SuperLink, unless `end_them`.
  virtual void Stop(bool end_them) = 0;
};

}  // namespace umbel::superlink
