// One SuperNode: its sites, their host, and the doors it serves, put together. Start, Stop and the
// rest from one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "supernode/options.h"

namespace boost::asio {
class any_io_executor;
}

namespace umbel::supernode {

class Host;

/// For programs that bring their own: makes the host, on the io_context's thread.
using HostFactory = std::function<std::unique_ptr<Host>(
    const boost::asio::any_io_executor& executor, const Options& options)>;

class SuperNode {
 public:
  /// Opens the state, binds the port, starts to connect.
  /// on_end     called once, on another thread, when every site has ended by itself.
  /// make_host  in place of the options' host_kind.
  /// errors  kAlreadyExists: another process owns the state; kUnavailable: the port; others name
  ///         the file or flag.
  static Result<std::unique_ptr<SuperNode>> Start(const Options& options,
                                                  std::function<void()> on_end,
                                                  HostFactory make_host = nullptr);
  virtual ~SuperNode() = default;

  virtual uint16_t port() const = 0;
  /// Signs off, ends the processes of user code, lets what is being sent finish within the grace.
  /// Returns why the sites ended, if they did so by themselves. Idempotent.
  virtual Status Stop() = 0;
};

/// Checks what flags alone cannot say.
Status Validate(const Options& options);

/// `<home>/supernode/<hash of superlink address, node config and port>`.
std::string StateDirectory(const Options& options, const std::string& home);

}  // namespace umbel::supernode
