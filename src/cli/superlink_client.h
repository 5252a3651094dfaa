// What commands ask of a SuperLink: one call at a time, blocking. Belongs to one thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/client.h"

namespace umbel::cli {

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
    /// A descriptor: the body of a 200 goes there, from the file's beginning, as it comes. -1: it
    /// is returned.
    int answer_file = -1;
  };
  /// The body of a 200. Tried again for a minute while the SuperLink does not answer.
  /// errors  what the SuperLink says, under the code its status stands for; kUnavailable.
  virtual Result<std::string> Post(const Call& call) = 0;

  virtual const std::string& address() const = 0;
};

}  // namespace umbel::cli
