// What the files of the Runtime door share. Internal to this folder.
#pragma once

#include <google/protobuf/message_lite.h>

#include "flower/door.h"
#include "flower/errors.h"
#include "supernode/runtime/door.h"

namespace umbel::supernode {

namespace wire = flower::wire;
using flower::WireError;

/// The live task whose token the caller shows, as exactly one header.
Result<AppTaskPtr> TaskOfToken(RuntimeDoor& door, const Exchange& exchange);
/// Reads the request, then finds the task: a request that makes no sense is answered as such.
Task<Result<AppTaskPtr>> ReadFor(RuntimeDoor& door, Exchange& exchange,
                                 google::protobuf::MessageLite* message, size_t limit);

Task<Status> PushObject(RuntimeDoor& door, Exchange& exchange);
Task<Status> PullObject(RuntimeDoor& door, Exchange& exchange);

}  // namespace umbel::supernode
