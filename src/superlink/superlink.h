// One SuperLink: its state, doors and ServerApps, put together. Start and Stop from one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "superlink/options.h"

namespace umbel::superlink {

class SuperLink {
 public:
  /// Opens the state, binds the port, takes up unfinished runs.
  /// errors  kAlreadyExists: another process owns the state; kUnavailable: the port; others name
  ///         the file or flag.
  static Result<std::unique_ptr<SuperLink>> Start(const Options& options);
  virtual ~SuperLink() = default;

  virtual uint16_t port() const = 0;
  /// Lets running answers finish within the grace, then closes. Idempotent.
  virtual void Stop() = 0;
};

/// Checks what flags alone cannot say, e.g. TLS beyond loopback.
Status Validate(const Options& options);

}  // namespace umbel::superlink
