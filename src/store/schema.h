// The database's tables, as a list of migrations that only ever grows.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "store/sqlite.h"

namespace umbel::store {

/// Step i brings a database of version i to version i + 1.
struct Migration {
  const char* what;
  const char* sql;
};

std::span<const Migration> Migrations();

/// Before anything is written: looks whose database it is, and chooses what can only be chosen
/// while it is empty (page size, incremental vacuum). path    for messages. errors
/// kFailedPrecondition: a newer umbel wrote it, or it is not umbel's database at all.
Status PrepareDatabase(Connection& connection, const std::string& path,
                       std::span<const Migration> migrations = Migrations());

/// Brings a prepared database to the newest version, each step in a transaction of its own.
Status Migrate(Connection& connection, const std::string& path,
               std::span<const Migration> migrations = Migrations());

/// One value of the table `meta`; 0 when absent.
Result<int64_t> ReadMeta(Connection& connection, std::string_view key);
Result<std::string> ReadMetaText(Connection& connection, std::string_view key);
Status WriteMeta(Connection& connection, std::string_view key, int64_t value);
Status WriteMetaText(Connection& connection, std::string_view key, const std::string& value);

}  // namespace umbel::store
