// What each Write of rows.h does to the database. For the one writer connection, in a transaction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "store/rows.h"
#include "store/sqlite.h"

namespace umbel::store {

struct WriteLimits {
  uint64_t run_log_bytes_max = 0;
  uint64_t total_log_bytes_max = 0;
  int64_t audit_rows_max = 0;
};

/// errors  those of SqliteError; kFailedPrecondition: the data of an unfinished run would go.
Status Apply(Connection& connection, const WriteLimits& limits, const Write& write);

/// About what the write holds in memory while it waits.
size_t WriteBytes(const Write& write);

/// True for writes that free pages which nobody will soon want: what a round drops, the next one of
/// its run takes again.
bool FreesSpace(const Write& write);

/// Removes messages and objects of finished runs, which nobody can ask for after a restart.
Status SweepFinished(Connection& connection);

}  // namespace umbel::store
