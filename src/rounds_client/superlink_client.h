// What commands and the manager ask of a SuperLink: one call at a time, blocking. Belongs to one
// thread, but for Cancel().
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/client.h"

namespace umbel::rounds_client {

class SuperLinkClient {
 public:
  /// address            "host:port".
  /// root_certificates  PEM file; "": the system's.
  /// errors             kInvalidArgument: no such address or file.
  static Result<std::unique_ptr<SuperLinkClient>> Make(const std::string& address, bool insecure,
                                                       const std::string& root_certificates);
  virtual ~SuperLinkClient() = default;

  struct Call {
    std::string path;
    std::string body;
    std::vector<http::FilePart> file;  // after the body
    std::string headers;               // complete lines
    std::chrono::seconds timeout{30};
    size_t answer_max = size_t{64} << 20;
    /// For how long it is tried again while the SuperLink does not answer.
    std::chrono::seconds patience{60};
    /// A descriptor: the body of a 200 goes there, from the file's beginning, as it comes. -1: it
    /// is returned.
    int answer_file = -1;
  };
  /// The body of a 200.
  /// errors  what the SuperLink says, under the code its status stands for; kUnavailable;
  ///         kCancelled.
  virtual Result<std::string> Post(const Call& call) = 0;
  /// Ends the call under way, and all that come after. Any thread.
  virtual void Cancel() = 0;

  virtual const std::string& address() const = 0;
};

}  // namespace umbel::rounds_client
