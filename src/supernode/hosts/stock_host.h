// Runs unmodified `flwr-clientapp`: started before its message exists, it waits in a held
// pull-task-input and works at once when a job comes; the next one warms up meanwhile. Belongs to
// the node's io_context thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "supernode/host.h"
#include "supernode/limits.h"
#include "supernode/runtime/task_table.h"

namespace boost::asio {
class io_context;
class thread_pool;
}  // namespace boost::asio

namespace umbel::process {
class CgroupParent;
}

namespace umbel::supernode {

struct StockOptions {
  std::string program;            // a path
  std::string runtime_address;    // HOST:PORT where the processes find the Runtime door
  std::string root_certificates;  // PEM file for that; "": no TLS
  bool allow_runtime_dependency_installation = false;
  std::vector<std::string> environment;  // "NAME=value"; all that the processes see
  std::string directory;                 // they start here; "": where we are
  /// Processes that wait for jobs: as many as jobs may run at once. 0: none, each is started for
  /// its job. Never more than SparesBearable().
  size_t spares = 1;
  Limits limits;      // all but network: the processes need the Runtime door
  OutputSink output;  // may be empty
};

/// What this machine can keep waiting without harm: a process each core, in half of the free
/// memory.
size_t SparesBearable();

/// groups  null: no cgroups here.
std::unique_ptr<Host> MakeStockHost(boost::asio::io_context& context,
                                    boost::asio::thread_pool& pool, TaskTable& tasks,
                                    StockOptions options, process::CgroupParent* groups);

}  // namespace umbel::supernode
