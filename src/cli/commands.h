// Commands of the umbel binary. Each takes its own arguments and returns the exit status.
#pragma once

#include <cstdint>
#include <string>

#include "supernode/supernode.h"

namespace umbel::cli {

/// `umbel superlink ...`; argv[0] is "superlink".
int SuperLinkCommand(int argc, char** argv);

/// `umbel superlink gc ...`; argv[0] is "gc".
int SuperLinkGcCommand(int argc, char** argv);

/// `umbel supernode ...`; argv[0] is "supernode".
/// make_host  for programs that bring their ClientApp along; argv[0] is then the program.
int SuperNodeCommand(int argc, char** argv, const supernode::HostFactory& make_host = nullptr);

/// `umbel supernode status ...`; argv[0] is "status".
int SuperNodeStatusCommand(int argc, char** argv);

/// `umbel run ...`; argv[0] is "run".
int RunCommand(int argc, char** argv);

/// `umbel up ...`: manager, local ground and API; and what asks them.
int UpCommand(int argc, char** argv);
int ProjectCommand(int argc, char** argv);
int PsCommand(int argc, char** argv);
int LogsCommand(int argc, char** argv);
int NodesCommand(int argc, char** argv);
int TrackingCommand(int argc, char** argv);
int DataCommand(int argc, char** argv);
int ModelsCommand(int argc, char** argv);
int PredictCommand(int argc, char** argv);
int AccountsCommand(int argc, char** argv);

/// Where the SuperLink on this port keeps its state unless told otherwise.
std::string StateDirectory(int64_t port);

}  // namespace umbel::cli
