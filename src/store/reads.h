// The queries behind Store's reads, each on a connection the caller has to itself.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/rows.h"
#include "store/sqlite.h"
#include "store/store.h"

namespace umbel::store {

/// One consistent view. unclean_machine_stop is the caller's to fill in.
Result<Snapshot> LoadSnapshot(Connection& connection);

Result<std::string> SelectInline(Connection& connection, RunId run_id, const ObjectId& object_id);
Result<std::string> SelectFab(Connection& connection, const Digest& hash);
Result<SeriesRow> SelectSeries(Connection& connection, SeriesId series_id);
Result<RunListing> SelectRun(Connection& connection, RunId run_id);
Result<std::vector<RunListing>> SelectRuns(Connection& connection, uint64_t limit, uint64_t skip);
Result<LogChunk> SelectLogs(Connection& connection, RunId run_id, int64_t cursor, WallTime after,
                            size_t bytes_max);
Result<std::vector<RoundRow>> SelectRounds(Connection& connection, RunId run_id, uint64_t after,
                                           uint64_t limit);
Result<std::vector<AuditRow>> SelectAudit(Connection& connection, uint64_t limit);

}  // namespace umbel::store
