// --isolation process: whoever runs a flower-superexec takes our jobs at the Runtime door and
// starts the ClientApps. Belongs to the node's io_context thread.
#pragma once

#include <memory>

#include "supernode/host.h"
#include "supernode/runtime/task_table.h"

namespace umbel::supernode {

std::unique_ptr<Host> MakeProcessHost(TaskTable& tasks);

}  // namespace umbel::supernode
