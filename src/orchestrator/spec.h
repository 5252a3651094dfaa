// What every ground asks of a spec before it wants it. Pure; any thread.
#pragma once

#include "orchestrator/ground.h"

namespace umbel::orchestrator {

inline constexpr size_t kNameBytesMax = 120;

/// errors  kInvalidArgument: a name that is not 1 to 120 of A-Z a-z 0-9 . _ - with a letter or
/// digit
///         first; no program; a zero byte; an entry of the environment that is not KEY=value or is
///         there twice; a directory that is not absolute.
Status CheckSpec(const InstanceSpec& spec);

/// The node of the spec must be one of the ground's.
/// errors  kInvalidArgument: it is not; the message names those there are.
Status CheckNode(const InstanceSpec& spec, const std::vector<Node>& nodes);

/// node-0 without add-ons, node-1 and node-2 with FLOps-learner; on this machine, without
/// capacities.
std::vector<Node> DefaultNodes();

/// "waiting", "starting", "running", "completed", "failed".
std::string_view StateName(InstanceState state);

}  // namespace umbel::orchestrator
