// All native rounds of a SuperLink: answers what is sent to node 1, and gives each session a
// thread. Any thread may call.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "superlink/engine.h"

namespace umbel::superlink::rounds {

class Service {
 public:
  /// Takes up the sessions that another process has left.
  ///
  /// directory  the SuperLink's own, for checkpoints and models; "" keeps neither.
  /// errors     kUnavailable: a folder cannot be made.
  static Result<std::unique_ptr<Service>> Start(Engine& engine, const std::string& directory);
  virtual ~Service() = default;

  /// Ends the threads; sessions stay where they are. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace umbel::superlink::rounds
