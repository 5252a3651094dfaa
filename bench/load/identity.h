// A SuperNode's key pair, on P-256, and the headers it signs each call with.
// Const functions are safe from any thread.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"

namespace umbel::bench {

class Identity {
 public:
  Identity();

  const std::string& pem() const { return pem_; }
  /// The three header lines of one call.
  std::string SignedHeaders() const;
  std::string Sign(const std::string& text) const;  // DER
  bool Verify(const std::string& text, const std::string& signature) const;

 private:
  struct Free {
    void operator()(void* key) const;
  };
  std::unique_ptr<void, Free> key_;
  std::string pem_;
  std::string pem_base64_;
};

/// Seconds that one check of a P-256 signature takes here.
double SecondsPerVerification();

}  // namespace umbel::bench
