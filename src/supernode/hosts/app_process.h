// One process of user code that says what it has to say on its standard output: started and
// confined, its output read by the line, its end seen at once, all that it leaves behind ended.
// Belongs to the io_context thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "process/confined.h"
#include "supernode/limits.h"

namespace boost::asio {
class io_context;
class thread_pool;
}  // namespace boost::asio

namespace umbel::process {
class CgroupParent;
}

namespace umbel::supernode {

class AppProcess {
 public:
  struct End {
    std::string how;            // as in "exited with status 1", "needed more memory than ..."
    std::optional<int> status;  // of waitpid
    bool out_of_memory = false;
  };
  struct Observer {
    std::function<void(std::string_view)> line;
    /// Once, after the last line, when nothing of it is left.
    std::function<void(const End&)> end;
  };

  /// As a site's limits have it, but with the network.
  /// groups  null: no cgroups here; then only its process group ends with it.
  /// name    of its group.
  /// errors  kInvalidArgument, kUnavailable: the program cannot be started.
  static Result<std::shared_ptr<AppProcess>> Start(boost::asio::io_context& context,
                                                   boost::asio::thread_pool& pool,
                                                   process::CommandSpec command,
                                                   const Limits& limits,
                                                   process::CgroupParent* groups,
                                                   const std::string& name, Observer observer);
  virtual ~AppProcess() = default;

  virtual pid_t pid() const = 0;
  /// SIGTERM to its process group after `polite`, SIGKILL after `grace` more; neither when it has
  /// ended. Of several calls the earliest times count.
  virtual void EndSoon(std::chrono::milliseconds polite, std::chrono::milliseconds grace) = 0;
};

}  // namespace umbel::supernode
