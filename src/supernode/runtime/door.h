// The Runtime door of a SuperNode: what flwr-clientapp and flower-superexec ask of it. Belongs to
// the node's io_context thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "flower/auth.h"
#include "http/exchange.h"
#include "supernode/runtime/task_table.h"

namespace umbel::supernode {

using http::Exchange;

struct RuntimeDoorOptions {
  /// Whether an external SuperExec may take jobs: --isolation process.
  bool external = false;
  /// Null: whoever reaches the door may take jobs.
  flower::SuperExecAuth* superexec = nullptr;
  OutputSink output;  // of programs that send their log here; may be empty
};

class RuntimeDoor {
 public:
  /// All must outlive the door.
  RuntimeDoor(TaskTable& tasks, RuntimeDoorOptions options)
      : tasks_(tasks), options_(std::move(options)) {}

  static bool Serves(std::string_view path) { return path.starts_with("/v1/runtime/"); }
  /// Answers, or returns what flower::ReplyError is to answer.
  Task<Status> Handle(Exchange& exchange);

  TaskTable& tasks() { return tasks_; }
  const RuntimeDoorOptions& options() const { return options_; }

 private:
  TaskTable& tasks_;
  const RuntimeDoorOptions options_;
};

}  // namespace umbel::supernode
