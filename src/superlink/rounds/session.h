// Native rounds of one run: the SuperLink in a ServerApp's place. A state machine that is called
// when something may have changed; all it must not forget is in its row, its run's messages and
// objects, and its checkpoint. Deliver may be called from any thread, the rest belongs to one.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "base/wake.h"
#include "store/rows.h"
#include "superlink/engine.h"

namespace umbel::superlink::rounds {

class Session {
 public:
  struct Setup {
    RunId run_id;
    /// For checkpoints and kept models: "<state>/rounds" and "<state>/models". "" keeps neither.
    std::string checkpoints;
    std::string models;
    /// Bytes of model from which it pays to look at each object of a reply as it comes: below, a
    /// reply is folded in less time than it takes to wake up for its parts.
    uint64_t fold_early_from = uint64_t{8} << 20;
  };
  /// Begins a session, or takes up where another process stopped.
  /// errors  kInvalidArgument: the plan does not fit the model; kDataLoss, kUnavailable: our disk.
  static Result<std::unique_ptr<Session>> Open(Engine& engine, const Setup& setup,
                                               const store::SessionRow& row);
  virtual ~Session() = default;

  virtual WallTime Now() const = 0;

  /// A message to node 1 that is for this session: it is answered when its time has come.
  virtual void Deliver(Delivery message) = 0;

  /// Does all that can be done now, blocking for our own disk and processor only.
  ///
  /// waker    told when another call is worth its while.
  /// returns  the latest time for that call; nullopt: the run is over, or all that is left is to
  ///          answer messages.
  virtual std::optional<WallTime> Step(const std::shared_ptr<Wakeable>& waker) = 0;
};

}  // namespace umbel::superlink::rounds
