#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "federation.h"
#include "payload.h"
#include "tensor/sha256.h"

namespace umbel::bench {
namespace {

constexpr size_t kPiece = size_t{256} << 10;
constexpr char kPush = 'P';
constexpr char kPull = 'G';
constexpr size_t kDigest = 32;

/// Reads exactly `size` bytes. False: the peer has closed.
bool ReceiveAll(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = ::recv(fd, data, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

/// The other side of the loopback: nothing but what the bytes need.
class RoofServer {
 public:
  RoofServer(const RoofOptions& options, int file) : options_(options), file_(file) {}

  /// Serves one connection: the operation, the object's place, then its bytes either way.
  void Serve(int peer) const {
    std::vector<char> piece(kPiece);
    char operation = 0;
    uint64_t place = 0;
    while (ReceiveAll(peer, &operation, 1) &&
           ReceiveAll(peer, static_cast<char*>(static_cast<void*>(&place)), sizeof place)) {
      const auto offset = static_cast<off_t>(place * options_.object_bytes);
      if (!(operation == kPush ? TakeIn(peer, offset, piece) : GiveOut(peer, offset))) return;
    }
  }

 private:
  bool TakeIn(int peer, off_t offset, std::vector<char>& piece) const {
    tensor::Sha256 hash;
    for (size_t left = options_.object_bytes; left > 0;) {
      const ssize_t n = ::recv(peer, piece.data(), std::min(left, piece.size()), 0);
      if (n <= 0) return false;
      const auto got = static_cast<size_t>(n);
      hash.Update(std::span<const char>(piece.data(), got));
      if (::pwrite(file_, piece.data(), got, offset) != n) return false;
      offset += n;
      left -= got;
    }
    const Digest digest = hash.Finish();
    if (options_.sync && ::fdatasync(file_) != 0) return false;
    return ::send(peer, digest.bytes.data(), kDigest, MSG_NOSIGNAL) ==
           static_cast<ssize_t>(kDigest);
  }
  bool GiveOut(int peer, off_t offset) const {
    for (size_t left = options_.object_bytes; left > 0;) {
      const ssize_t n = ::sendfile(peer, file_, &offset, left);
      if (n <= 0) return false;
      left -= static_cast<size_t>(n);
    }
    return true;
  }

  const RoofOptions& options_;
  const int file_;
};

/// In a process of its own, like a server: one thread a connection, until all have closed.
[[noreturn]] void ServeAndExit(const RoofOptions& options, const Listener& listener, int file) {
  const RoofServer server(options, file);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < 2 * options.connections; ++i) {  // for pushing, then for pulling
      const int peer = ::accept(listener.fd.get(), nullptr, nullptr);
      if (peer < 0) ::_exit(1);
      threads.emplace_back([&server, peer] {
        server.Serve(peer);
        ::close(peer);
      });
    }
  }
  ::_exit(0);
}

std::string Order(char operation, uint64_t place) {
  std::string order(1, operation);
  order.append(static_cast<const char*>(static_cast<const void*>(&place)), sizeof place);
  return order;
}

Result<Digest> PushOne(Socket& socket, const Blob& blob, uint64_t place, size_t size) {
  // Cut to the size without Flower's head, so that places in the file are even.
  const std::string order = Order(kPush, place);
  const std::string_view own = std::string_view(blob.own).substr(blob.own.size() - 16);
  const std::array<std::string_view, 3> parts{order, own, blob.shared.substr(0, size - own.size())};
  UMBEL_TRY(socket.Send(parts));
  Digest digest;
  if (!ReceiveAll(socket.fd(), static_cast<char*>(static_cast<void*>(digest.bytes.data())),
                  kDigest))
    return Fail(Code::kUnavailable, "the roof's server gave up");
  return digest;
}

Result<Digest> PullOne(Socket& socket, uint64_t place, size_t size, std::vector<char>& piece) {
  UMBEL_TRY(socket.Send(Order(kPull, place)));
  tensor::Sha256 hash;
  for (size_t left = size; left > 0;) {
    UMBEL_ASSIGN(const size_t got,
                 socket.Receive(std::span(piece).first(std::min(left, piece.size()))));
    if (got == 0) return Fail(Code::kUnavailable, "the roof's server gave up");
    hash.Update(std::span<const char>(piece).first(got));
    left -= got;
  }
  return hash.Finish();
}

nlohmann::json Figures(double seconds, double bytes) {
  return {{"seconds", seconds}, {"bytes", bytes}, {"gb_per_s", bytes / seconds / 1e9}};
}

}  // namespace

Status RunRoof(const RoofOptions& options) {
  const size_t lanes = options.connections;
  const size_t each = options.objects / lanes;
  const size_t size = options.object_bytes;
  const std::string path = fmt::format("{}/umbel-roof-{}", options.folder, ::getpid());
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return Fail(SystemError("create", path));
  ::unlink(path.c_str());
  if (::fallocate(file.get(), 0, 0, static_cast<off_t>(each * lanes * size)) != 0)
    return Fail(SystemError("set space aside in", path));
  UMBEL_ASSIGN(const Listener listener, Listen());
  const pid_t child = ::fork();
  if (child < 0) return Fail(SystemError("start", "the roof's server"));
  if (child == 0) ServeAndExit(options, listener, file.get());

  std::vector<Parcel> parcels;
  for (size_t lane = 0; lane < lanes; ++lane)
    parcels.push_back(LargeParcel({}, lane, static_cast<int>(each), size));
  std::vector<Digest> stored(each * lanes);
  const Parallel push = RunParallel(lanes, [&](size_t lane) -> Status {
    UMBEL_ASSIGN(Socket socket, Socket::Dial(listener.endpoint));
    for (size_t i = 0; i < each; ++i) {
      const size_t place = lane * each + i;
      UMBEL_ASSIGN(stored[place], PushOne(socket, parcels[lane].objects[i], place, size));
    }
    return {};
  });
  const Parallel pull = RunParallel(lanes, [&](size_t lane) -> Status {
    std::vector<char> piece(kPiece);
    UMBEL_ASSIGN(Socket socket, Socket::Dial(listener.endpoint));
    for (size_t place = lane * each; place < (lane + 1) * each; ++place) {
      UMBEL_ASSIGN(const Digest digest, PullOne(socket, place, size, piece));
      if (digest != stored[place]) return Fail(Code::kDataLoss, "other bytes came back");
    }
    return {};
  });
  if (!push.status.ok() || !pull.status.ok()) ::kill(child, SIGKILL);
  int ended = 0;
  ::waitpid(child, &ended, 0);
  UMBEL_TRY(push.status);
  UMBEL_TRY(pull.status);
  const double bytes = static_cast<double>(each * lanes) * static_cast<double>(size);
  const nlohmann::json out = {{"objects", each * lanes},
                              {"connections", lanes},
                              {"sync", options.sync},
                              {"push", Figures(push.seconds, bytes)},
                              {"pull", Figures(pull.seconds, bytes)}};
  fmt::print("{}\n", out.dump());
  return {};
}

}  // namespace umbel::bench
