// HTTP/1.1 client: a pool of kept connections to one server. Coroutines; a Client and its calls
// belong to the one thread that runs its io_context.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/exchange.h"

namespace boost::asio {
class io_context;
}

namespace umbel::http {

struct ClientOptions {
  std::string host = "127.0.0.1";  // name or address; what the certificate must be for
  uint16_t port = 8000;
  bool tls = false;
  std::string root_certificates;  // PEM file; "": the system's
  size_t connections_max = 32;    // more calls than that wait for one to come free
  /// A connection that was idle for longer is not used again: the server may be closing it.
  std::chrono::seconds idle_max{4};
  std::chrono::seconds connect_timeout{30};
  std::string user_agent = "umbel";
};

/// `size` bytes of `fd` from `offset`. The descriptor must stay open until the call ends.
struct FilePart {
  int fd = -1;
  uint64_t offset = 0;
  uint64_t size = 0;
};

/// Not an aggregate: GCC 12 destroys a braced temporary twice when it is a coroutine's argument.
struct ClientRequest {
  ClientRequest(std::string_view m, std::string p) : method(m), path(std::move(p)) {}

  std::string method;
  std::string path;
  std::string content_type;   // "" sends none
  std::string extra_headers;  // complete "Name: value\r\n" lines
  std::string body;
  std::vector<FilePart> file;  // follow the body, by sendfile where the transport allows it
  /// Between two bytes of the request; before each head of the answer is whole (an interim 1xx
  /// counts); between two bytes of its body, which must also come at 1 KiB/s once this has passed.
  std::chrono::seconds timeout{30};
  /// Takes the body of a 200 as it comes, piece by piece; ClientResponse has none then. What it
  /// returns ends the call. Bytes it was given do not come again.
  std::function<Status(std::string_view)> sink;
};

struct ClientResponse {
  int status = 0;
  std::string content_type;
  std::string www_authenticate;
  std::string body;
};

class Client {
 public:
  /// Makes the process ignore SIGPIPE unless it handles it: sendfile would raise it.
  /// errors  kInvalidArgument: root_certificates cannot be read; the message names the file; or
  ///         the host is no host name.
  static Result<std::unique_ptr<Client>> Make(boost::asio::io_context& context,
                                              ClientOptions options);
  virtual ~Client() = default;

  /// Sends once; whether to send again is the caller's to decide. Interim 1xx answers are skipped.
  ///
  /// body_max  of the answer, in bytes.
  /// returns   any status.
  /// errors    kUnavailable: nothing was answered, because of the address, the connection, or a
  ///           time limit (the message says which, with host and port); kUnauthenticated: the
  ///           server's certificate is not trusted or not for this host; kResourceExhausted: the
  ///           answer is longer than body_max; kDataLoss: it is not HTTP/1.1, or a FilePart is
  ///           shorter than it says; kInvalidArgument: method or path would break the request.
  ///           A kept connection that the server closed before the first byte of an answer is
  ///           replaced by a new one, once, without an error.
  virtual Task<Result<ClientResponse>> Send(const ClientRequest& request, size_t body_max) = 0;

  /// Lets no new call begin and ends those under way with kCancelled. Idempotent.
  virtual void Close() = 0;
};

}  // namespace umbel::http
