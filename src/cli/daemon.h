// What the long-running commands do alike: log, wait for a signal, end. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/log.h"
#include "base/result.h"

namespace umbel::cli {

/// "debug", "info", "warning" or "error".
LogLevel LevelOf(const std::string& name);

/// Starts the log and blocks SIGTERM, SIGINT and SIGUSR1 in this thread and those it starts.
Status BecomeDaemon(const LogOptions& log);
/// Makes AwaitSignal return; any thread.
void EndDaemon();
/// Blocks until SIGTERM, SIGINT or EndDaemon(). A further signal ends the process at once.
void AwaitSignal();

/// Blocks until there is something of that name. false: a signal came first, for AwaitSignal or the
/// end of the process.
Result<bool> AwaitFileOrSignal(const std::string& path);

/// $UMBEL_HOME, else ~/.umbel.
std::string UmbelHome();

}  // namespace umbel::cli
