#include <atomic>
#include <cstdlib>

#include "base/log.h"
#include "cli/commands.h"
#include "clientapp/client_app.h"
#include "clientapp/native_host.h"
#include "supernode/options.h"

namespace umbel::clientapp {

int Serve(int argc, char** argv, ClientApp app) {
  const SystemClock clock;
  const auto shared = std::make_shared<const ClientApp>(std::move(app));
  std::atomic<bool> abandoned = false;
  const auto make_host = [&](const boost::asio::any_io_executor& executor,
                             const supernode::Options& options) {
    LogInfo("the ClientApp runs in this process; limits are not kept",
            {{"threads", options.max_parallel}});
    NativeOptions native;
    native.threads = options.max_parallel;
    native.on_abandon = [&] { abandoned = true; };
    return MakeNativeHost(executor, shared, std::move(native), clock);
  };
  const int status = cli::SuperNodeCommand(argc, argv, make_host);
  // What main's end would destroy is still in use.
  if (abandoned) std::_Exit(status);
  return status;
}

}  // namespace umbel::clientapp
