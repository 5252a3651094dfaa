// A data server: its folder, its port, its learners' sockets. One thread starts and stops it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "dataserver/shelf.h"

namespace umbel::dataserver {

inline constexpr uint16_t kFirstPort = 11027;

struct Options {
  std::string host = "127.0.0.1";
  int32_t port = -1;  // 0: the system picks; -1: the first free one from kFirstPort upward
  std::string data_dir;
  std::string learner_sockets;  // "": in data_dir
  uint64_t learners_max = 64;
  Quotas quotas;
  std::string token_file;  // "": whoever reaches the port may use it
  bool allow_anonymous = false;
  std::string tls_certificate;  // PEM files
  std::string tls_key;
};

/// errors  kInvalidArgument: names the flag.
Status Validate(const Options& options);

class Server {
 public:
  /// errors  kInvalidArgument; kAlreadyExists: another process has the folder or the port.
  static Result<std::unique_ptr<Server>> Start(const Options& options);
  ~Server();

  /// "grpc://127.0.0.1:11027", or grpc+tls.
  const std::string& location() const;
  /// Takes no new calls; those that run have `grace` to end, and are broken off then.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace umbel::dataserver
