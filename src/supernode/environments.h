// What apps need beyond the site's Python: an environment for each set of dependencies, made once
// by uv, kept in the state, shared by all runs. Belongs to the io_context's one thread; blocking
// work goes to a pool.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "supernode/host.h"
#include "supernode/limits.h"

namespace boost::asio {
class io_context;
class thread_pool;
}  // namespace boost::asio

namespace umbel::process {
class CgroupParent;
}

namespace umbel::supernode {

struct EnvironmentOptions {
  std::string root;                    // folder of all environments, nobody else's
  std::string python;                  // interpreter that loads the apps, and has uv
  std::vector<std::string> variables;  // "NAME=value": all that uv and what it builds see
  /// Of uv too: what it builds is the app's code. It always has the network; without `network` it
  /// builds nothing, and takes only what is built already.
  Limits limits;
  std::chrono::seconds build_limit{30 * 60};
};

class Environments {
 public:
  /// Such environments stay when a node starts, the ones used last.
  static constexpr size_t kKept = 8;

  /// Clears away what is unfinished or too old. Blocks.
  /// groups  null: no cgroups here.
  static Result<std::unique_ptr<Environments>> Open(boost::asio::io_context& context,
                                                    boost::asio::thread_pool& pool,
                                                    EnvironmentOptions options,
                                                    process::CgroupParent* groups);
  virtual ~Environments() = default;

  /// The folder of the app's environment, made now if it is not there; "" if it needs none. Whoever
  /// asks for what is being made waits for it. A run is told of a failure once for all: another run
  /// has it tried again.
  /// errors  kFailedPrecondition: why it cannot be made, in words for the reply; kCancelled:
  /// Stop().
  virtual Task<Result<std::string>> Of(const App& app, RunId run_id) = 0;
  /// The run is over.
  virtual void Drop(RunId run_id) = 0;
  /// Ends what is being made, and waits for it.
  virtual Task<void> Stop(std::chrono::milliseconds grace) = 0;
};

/// Whether uv would find anything to install for a project besides Flower.
/// errors  kInvalidArgument: the text is no TOML.
Result<bool> NeedsEnvironment(std::string_view pyproject);

}  // namespace umbel::supernode
