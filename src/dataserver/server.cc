#include "dataserver/server.h"

#include <arpa/inet.h>
#include <arrow/flight/server_middleware.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/lock_file.h"
#include "base/log.h"
#include "dataserver/arrow_status.h"
#include "dataserver/learner_sockets.h"
#include "dataserver/main_service.h"
#include "dataset/names.h"
#include "dataset/tokens.h"
#include "tensor/sha256.h"

namespace umbel::dataserver {
namespace {

using std::chrono::system_clock;

constexpr int32_t kPortsTried = 100;
constexpr const char* kShortFolder = "/tmp/umbel-data-";
constexpr size_t kPemBytesMax = size_t{1} << 20;

bool IsLoopback(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  if (::inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

/// gRPC says of a port that it cannot have no more than that; so it is tried first.
/// errors  kAlreadyExists: somebody listens there; kInvalidArgument: the host is no address of
/// ours.
Status TryPort(const std::string& host, int32_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  const std::string service = std::to_string(port);
  if (const int failed = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found); failed != 0)
    return Fail(Code::kInvalidArgument,
                fmt::format("--host '{}': {}", host, ::gai_strerror(failed)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> free(found, ::freeaddrinfo);
  const Fd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) == 0 && ::listen(fd.get(), 1) == 0)
    return {};
  if (errno == EADDRINUSE)
    return Fail(
        Code::kAlreadyExists,
        fmt::format("port {} of {} is in use: --port 0 lets the system pick one", port, host));
  return Fail(SystemError("listen on", fmt::format("{}:{}", host, port)));
}

Result<int32_t> PickPort(const Options& options) {
  if (options.port >= 0) {
    if (options.port > 0) UMBEL_TRY(TryPort(options.host, options.port));
    return options.port;
  }
  for (int32_t port = kFirstPort;; ++port) {
    const Status free = TryPort(options.host, port);
    if (free.ok()) return port;
    if (free.error().code != Code::kAlreadyExists || port >= kFirstPort + kPortsTried)
      return Fail(free.error());
  }
}

/// A folder of ours alone in /tmp, for data folders whose paths are too long for sockets.
Result<std::string> ShortFolder(const std::string& own) {
  const std::string path = kShortFolder + tensor::Sha256Of(own).Hex().substr(0, 16);
  if (::mkdir(path.c_str(), 0711) != 0 && errno != EEXIST)
    return Fail(SystemError("create folder", path));
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return Fail(SystemError("look at", path));
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid())
    return Fail(Code::kPermissionDenied,
                fmt::format("'{}' is somebody else's: give a folder by --learner-sockets", path));
  return path;
}

Result<std::string> SocketsFolder(const Options& options, const std::string& own) {
  if (options.learner_sockets.empty()) {
    const std::string folder = own + "/sockets";
    if (dataset::LearnerSocketsFit(folder)) return folder;
    return ShortFolder(own);
  }
  std::error_code error;
  const std::string folder =
      std::filesystem::absolute(options.learner_sockets, error).lexically_normal();
  if (dataset::LearnerSocketsFit(folder)) return folder;
  return Fail(Code::kInvalidArgument,
              fmt::format("--learner-sockets '{}': a path too long for sockets", folder));
}

class TokenGate final : public arrow::flight::ServerMiddlewareFactory {
 public:
  explicit TokenGate(dataset::Tokens tokens) : tokens_(std::move(tokens)) {}

  arrow::Status StartCall(const arrow::flight::CallInfo&,
                          const arrow::flight::ServerCallContext& context,
                          std::shared_ptr<arrow::flight::ServerMiddleware>*) override {
    const auto& headers = context.incoming_headers();
    const auto [begin, end] = headers.equal_range("authorization");
    for (auto it = begin; it != end; ++it)
      if (tokens_.Allow(it->second)) return arrow::Status::OK();
    return ToArrow({Code::kUnauthenticated,
                    begin == end
                        ? "this data server wants a token: send the header 'authorization: "
                          "Bearer TOKEN'"
                        : "this token is not known here",
                    0});
  }

 private:
  const dataset::Tokens tokens_;
};

Result<arrow::flight::FlightServerOptions> FlightOptions(const Options& options, int32_t port) {
  using arrow::flight::Location;
  const bool tls = !options.tls_certificate.empty();
  UMBEL_ASSIGN(const Location location, From(tls ? Location::ForGrpcTls(options.host, port)
                                                 : Location::ForGrpcTcp(options.host, port)));
  arrow::flight::FlightServerOptions flight(location);
  if (tls) {
    UMBEL_ASSIGN(std::string certificate, ReadFile(options.tls_certificate, kPemBytesMax));
    UMBEL_ASSIGN(std::string key, ReadFile(options.tls_key, kPemBytesMax));
    flight.tls_certificates.push_back({std::move(certificate), std::move(key)});
  }
  if (!options.token_file.empty()) {
    UMBEL_ASSIGN(dataset::Tokens tokens, dataset::Tokens::ReadFrom(options.token_file));
    flight.middleware.emplace_back("token", std::make_shared<TokenGate>(std::move(tokens)));
  }
  return flight;
}

}  // namespace

Status Validate(const Options& options) {
  const auto wrong = [](std::string message) {
    return Fail(Code::kInvalidArgument, std::move(message));
  };
  if (options.tls_certificate.empty() != options.tls_key.empty())
    return wrong("--ssl-certfile and --ssl-keyfile go together");
  const bool open = options.token_file.empty();
  if (!IsLoopback(options.host) && open && !options.allow_anonymous)
    return wrong(
        fmt::format("--host {} is reached from beyond this machine: give --token-file, or "
                    "--allow-anonymous if whoever reaches it may read, put and drop",
                    options.host));
  if (!open && options.allow_anonymous)
    return wrong("--token-file and --allow-anonymous contradict each other");
  return {};
}

struct Server::Parts {
  std::optional<LockFile> lock;
  std::unique_ptr<Shelf> shelf;
  std::unique_ptr<LearnerSockets> learners;
  std::unique_ptr<MainService> service;
  std::string location;
  std::string sockets;
  bool serving = false;
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() { Stop(std::chrono::milliseconds(0)); }

const std::string& Server::location() const { return parts_->location; }

Result<std::unique_ptr<Server>> Server::Start(const Options& options) {
  UMBEL_TRY(Validate(options));
  std::error_code error;
  const std::string folder = std::filesystem::absolute(options.data_dir, error).lexically_normal();
  const std::string own = folder + "/.umbel";
  UMBEL_TRY(MakeDirectories(folder));
  UMBEL_TRY(MakeDirectories(own));
  auto parts = std::make_unique<Parts>();
  UMBEL_ASSIGN(parts->lock, LockFile::Take(own + "/lock", fmt::format("folder '{}'", folder)));
  UMBEL_ASSIGN(parts->shelf, Shelf::Open(folder, own + "/incoming", options.quotas));
  UMBEL_ASSIGN(parts->sockets, SocketsFolder(options, own));
  UMBEL_ASSIGN(parts->learners,
               LearnerSockets::Open({own, parts->sockets, options.learners_max}, *parts->shelf));
  parts->service = std::make_unique<MainService>(*parts->shelf, *parts->learners);
  UMBEL_ASSIGN(const int32_t port, PickPort(options));
  UMBEL_ASSIGN(const auto flight, FlightOptions(options, port));
  auto started = From(parts->service->Init(flight));
  if (!started.ok())
    return Fail(started.error().code,
                fmt::format("cannot serve {}:{}: {}", options.host, port, started.error().message));
  parts->serving = true;
  const bool v6 = options.host.find(':') != std::string::npos;
  parts->location =
      fmt::format("{}://{}:{}", options.tls_certificate.empty() ? "grpc" : "grpc+tls",
                  v6 ? "[" + options.host + "]" : options.host, parts->service->port());
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

void Server::Stop(std::chrono::milliseconds grace) {
  if (!std::exchange(parts_->serving, false)) return;
  const auto deadline = system_clock::now() + grace;
  std::thread learners([&] { parts_->learners->Stop(deadline); });
  (void)parts_->service->Shutdown(&deadline);
  (void)parts_->service->Wait();
  learners.join();
  if (parts_->sockets.starts_with(kShortFolder)) ::rmdir(parts_->sockets.c_str());
}

}  // namespace umbel::dataserver
