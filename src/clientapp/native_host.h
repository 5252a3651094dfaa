// Runs a ClientApp written in C++ on threads of the node's own process. Belongs to the node's
// io_context thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "clientapp/client_app.h"
#include "supernode/host.h"

namespace boost::asio {
class any_io_executor;
}

namespace umbel::clientapp {

struct NativeOptions {
  size_t threads = 1;  // calls at one time
  /// Stop() leaves a call behind that does not end in time. Its thread still works: nothing but the
  /// process's end stops it, and that should not wait for it.
  std::function<void()> on_abandon;
};

std::unique_ptr<supernode::Host> MakeNativeHost(const boost::asio::any_io_executor& executor,
                                                std::shared_ptr<const ClientApp> app,
                                                NativeOptions options, const Clock& clock);

}  // namespace umbel::clientapp
