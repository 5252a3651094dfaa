// One connection of a Client, and what all of them share. Belongs to the io_context's thread.
// Internal to this room.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/client.h"
#include "http/client_answer.h"

namespace umbel::http {

/// Whom a Client speaks to.
struct ClientTarget {
  ClientOptions options;
  std::string name;                                 // host:port, for people and for the Host header
  std::string common_lines;                         // of every request's head
  std::optional<boost::asio::ip::address> address;  // when the host is one
  std::optional<boost::asio::ssl::context> tls;
};

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  ClientConnection(boost::asio::io_context& io, ClientTarget& target);

  /// errors  kUnavailable, kUnauthenticated, kCancelled.
  Task<Status> Open();
  /// One request and its answer; errors as Client::Send's.
  Task<Result<ClientResponse>> Exchange(const ClientRequest& request, size_t body_max);
  /// What is under way ends with kCancelled, and nothing can follow.
  void Cancel();

  /// The last exchange failed because the server closed the connection before it said anything.
  bool lost() const { return lost_; }
  /// The last exchange ended so that another one may follow.
  bool reusable() const { return reusable_; }
  /// Nothing has come since, not even the connection's end.
  bool Quiet();

 private:
  using Socket = boost::asio::ip::tcp::socket;
  using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;
  struct Lookup;

  Task<Result<Endpoints>> Resolve(std::chrono::steady_clock::time_point until);
  Task<Status> Handshake();
  Task<Status> SendRequest(const ClientRequest& request);
  void WriteHead(const ClientRequest& request, uint64_t body_size);
  /// `more`: a file follows at once.
  Task<Status> Write(std::string_view first, std::string_view second, bool more);
  Task<Status> SendFile(FilePart part);
  Task<Status> CopyFile(FilePart part);
  Task<Status> Receive(const ClientRequest& request);

  void Arm(std::chrono::steady_clock::duration limit);
  void Disarm() { deadline_at_ = std::chrono::steady_clock::time_point::max(); }
  void StartTimer();

  tl::unexpected<Error> FailHere(Code code, std::string_view why) const;
  /// Of a read or write that failed, or was ended by a time limit or by Cancel().
  tl::unexpected<Error> IoError(std::string_view what, boost::system::error_code error);
  tl::unexpected<Error> FileEnded();

  boost::asio::io_context& io_;
  ClientTarget& target_;
  Socket socket_;
  std::optional<boost::asio::ssl::stream<Socket&>> tls_;
  std::weak_ptr<Lookup> lookup_;

  boost::asio::steady_timer timer_;
  std::chrono::steady_clock::time_point deadline_at_ = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point timer_at_{};
  bool timer_runs_ = false;
  bool timed_out_ = false;

  AnswerReader reader_;
  std::string head_;
  std::chrono::seconds timeout_{};  // of the exchange under way
  bool cancelled_ = false;
  bool peer_closed_ = false;
  bool lost_ = false;
  bool reusable_ = false;
};

}  // namespace umbel::http
