// The log's rows and their caps. For the one writer connection, in a transaction.
#pragma once

#include <cstdint>

#include "base/ids.h"
#include "base/result.h"
#include "store/rows.h"
#include "store/sqlite.h"

namespace umbel::store {

/// Appends, then drops what is over: the run's oldest text first; in total, the logs of the run
/// that finished first, then the next, and when no finished run has any, the oldest text of all.
/// The newest row always stays, however large.
Status AddLog(Connection& connection, const LogRow& row, uint64_t run_bytes_max,
              uint64_t total_bytes_max);

Status DropLogs(Connection& connection, RunId run_id);

}  // namespace umbel::store
