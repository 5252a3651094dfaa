// ClientApps in our own Python workers: a fork for each message, a process of its own where forking
// is not safe, or a process for each run series that stays (`resident`). One thread.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "supernode/environments.h"
#include "supernode/host.h"
#include "supernode/hosts/worker_process.h"

namespace umbel::supernode {

/// resident  a process for each series of runs, messages in order.
/// spares    processes that are kept loaded for an app that cannot be forked.
/// environments  with what the apps need; null: they have the interpreter's packages alone.
/// on_unfit  the interpreter cannot host ClientApps at all; the message names it and what it lacks.
std::unique_ptr<Host> MakeWorkerHost(const boost::asio::any_io_executor& executor,
                                     boost::asio::thread_pool& pool, WorkerOptions options,
                                     process::CgroupParent* groups, bool resident,
                                     const Clock& clock, size_t spares,
                                     std::unique_ptr<Environments> environments = nullptr,
                                     std::function<void(const Error&)> on_unfit = {});

}  // namespace umbel::supernode
