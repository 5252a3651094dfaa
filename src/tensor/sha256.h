// SHA-256, which names every object, message and FAB. OpenSSL's, behind an opaque pointer.
// A hasher belongs to one thread at a time; Sha256Of may be called from any thread.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "base/ids.h"

namespace umbel::tensor {

class Sha256 {
 public:
  Sha256();

  /// Any split of the bytes gives the same digest.
  void Update(std::span<const char> bytes);
  /// The digest of all bytes since the start; the hasher is then as new.
  Digest Finish();
  /// Forgets the bytes so far.
  void Reset();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

/// cost  no allocation after a thread's first call.
Digest Sha256Of(std::string_view bytes);

}  // namespace umbel::tensor
