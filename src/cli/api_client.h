// What commands ask of a running `umbel up`: JSON over its REST door, one call at a time, blocking.
// Belongs to one thread.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace CLI {
class App;
}  // namespace CLI

namespace umbel::cli {

/// Where `umbel up` is, as flags and the environment say it.
struct ApiFlags {
  std::string state;  // "": $UMBEL_HOME/up
  std::string url;    // "": what the state's folder says
  std::string user = "Admin";
  std::string password_file;  // "": Admin's in the state's folder
  bool json = false;
};
void AddApiFlags(CLI::App& app, ApiFlags* flags);

/// Where `umbel up` keeps its state unless told otherwise.
std::string UpDirectory();

class ApiClient {
 public:
  /// errors  kNotFound: no `umbel up` has run with this state.
  static Result<ApiClient> Open(const ApiFlags& flags);

  Result<nlohmann::json> Get(const std::string& path,
                             std::chrono::seconds timeout = std::chrono::seconds(30)) {
    return Ask("GET", path, "", timeout);
  }
  /// The answer's JSON. Logs in first, and again when the token is over.
  /// errors  what the door says, in its words; kUnavailable: nobody answers.
  Result<nlohmann::json> Ask(std::string_view method, const std::string& path,
                             const std::string& body, std::chrono::seconds timeout);

  const std::string& url() const { return url_; }

 private:
  Status LogIn();
  Result<nlohmann::json> Once(std::string_view method, const std::string& path,
                              const std::string& body, std::chrono::seconds timeout) const;

  std::string url_;
  std::string host_;
  uint16_t port_ = 0;
  std::string user_;
  std::string password_;
  std::string token_;  // "": not logged in yet
};

/// A part of a path, encoded.
std::string Escape(std::string_view text);

}  // namespace umbel::cli
