// `umbel superlink gc`: forgets ended runs, their logs and models.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "base/clock.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/settings.h"
#include "store/store.h"
#include "superlink/rounds/npz.h"

namespace umbel::cli {
namespace {

constexpr const char* kFooter = R"(Examples:
  umbel superlink gc --older-than 30 --dry-run
      What of the SuperLink on port 8000 would go: runs that ended 30 days ago or earlier.
  umbel superlink gc --port 9000 --older-than 0 --keep 20
      All ended runs but the newest 20.

The SuperLink must not be running: its state has one owner.)";

constexpr uint64_t kPage = 1000;

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel superlink gc: %s\n", error.message.c_str());
  return 1;
}

/// Bytes of a run's log.
Result<uint64_t> LogBytes(store::Store& store, RunId run_id) {
  uint64_t bytes = 0;
  int64_t cursor = 0;
  for (;;) {
    UMBEL_ASSIGN(const store::LogChunk chunk, store.ReadLogs(run_id, cursor, WallTime::min()));
    if (chunk.text.empty()) return bytes;
    bytes += chunk.text.size();
    cursor = chunk.cursor;
  }
}

/// The models that native rounds have left.
void RemoveModels(const std::string& directory, const std::vector<RunId>& runs) {
  for (const RunId run_id : runs) {
    std::error_code error;
    const std::string folder = superlink::rounds::ModelFolder(directory + "/models", run_id);
    std::filesystem::remove_all(folder, error);
    if (error)
      std::fprintf(stderr, "umbel superlink gc: '%s' stays: %s; remove it by hand\n",
                   folder.c_str(), error.message().c_str());
  }
}

Status Collect(store::Store& store, WallTime ended_before, uint64_t keep, bool dry_run) {
  std::vector<store::Write> writes;
  std::vector<RunId> dropped;
  uint64_t seen = 0;
  uint64_t log_bytes = 0;
  for (uint64_t skip = 0;; skip += kPage) {
    UMBEL_ASSIGN(const auto listings, store.ListRuns(kPage, skip));
    for (const store::RunListing& listing : listings) {
      if (listing.task.status != store::TaskStatus::kFinished || seen++ < keep ||
          listing.task.finished_at > ended_before)
        continue;
      UMBEL_ASSIGN(const uint64_t bytes, LogBytes(store, listing.run.run_id));
      log_bytes += bytes;
      fmt::print("{} run {}  {}  ended {}  {}  log {} bytes\n", dry_run ? "would drop" : "dropping",
                 listing.run.run_id, listing.run.fab_id, IsoFormat(listing.task.finished_at),
                 listing.task.sub_status, bytes);
      writes.push_back(store::DropRun{listing.run.run_id});
      dropped.push_back(listing.run.run_id);
    }
    if (listings.size() < kPage) break;
  }
  fmt::print("{} {} of {} ended runs, {} bytes of log\n", dry_run ? "would drop" : "dropped",
             writes.size(), seen, log_bytes);
  if (dry_run || writes.empty()) return {};
  store.Submit(std::move(writes));
  UMBEL_TRY(store.Drain());
  RemoveModels(store.directory(), dropped);
  return {};
}

}  // namespace

int SuperLinkGcCommand(int argc, char** argv) {
  CLI::App app("Forget ended runs, their logs and models.", "umbel superlink gc");
  app.footer(kFooter);
  int64_t port = 8000;
  std::string directory;
  double days = 30;
  uint64_t keep = 0;
  bool dry_run = false;
  app.add_option("--port", port, "Port of the SuperLink whose state this is")
      ->check(CLI::Range(0, 65535));
  app.add_option("--state-dir", directory, "Its folder, if it is not the usual one");
  app.add_option("--older-than", days, "Only runs that ended at least this many days ago")
      ->check(CLI::Range(0.0, 36500.0));
  app.add_option("--keep", keep, "Keep this many of the newest ended runs in any case");
  app.add_flag("--dry-run", dry_run, "Only show what would go");
  if (const auto status = Parse(app, argc, argv)) return *status;
  store::StoreOptions options;
  options.directory = directory.empty() ? StateDirectory(port) : directory;
  if (!std::filesystem::exists(options.directory))
    return Complain({Code::kNotFound, fmt::format("there is no state in '{}'", options.directory)});
  if (const Status log = LogStart({LogLevel::kWarn, "", {}, 0}); !log.ok())
    return Complain(log.error());
  const auto store = store::Store::Open(options);
  if (!store.ok()) return Complain(store.error());
  const WallTime now = SystemClock().Now();
  const auto age = Micros(static_cast<int64_t>(days * 86400e6));
  const Status done = Collect(**store, now - age, keep, dry_run);
  return done.ok() ? 0 : Complain(done.error());
}

}  // namespace umbel::cli
