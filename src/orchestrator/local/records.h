// What a local ground keeps of an instance on disk, in the instance's own folder:
//   wanted   the spec, written before anything happens; without it the instance is not wanted
//   state    what became of it so far and who keeps it, written by the ground
//   record   how the command goes and how it ended, written by its keeper
//   log.*    see instance_log.h
//   home/    its own directory, when the spec names none
// Files are written whole, by rename, but for the record: see RecordFile. Values; any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "orchestrator/ground.h"

namespace umbel::orchestrator {

/// What is to be kept of the status, and the process behind it.
struct KeptState {
  std::string node;
  InstanceState state = InstanceState::kWaiting;
  std::string detail;
  std::string last_end;  // of the start before
  uint32_t starts = 0;
  uint32_t failures = 0;  // in a row
  bool over = false;      // it is not started again
  WallTime since{};
  pid_t pid = 0;  // of the keeper; 0: none
  uint64_t start_ticks = 0;
  std::string boot;  // numbers of processes mean nothing after the machine's next start
};

/// Survives a machine that goes down.
Status WriteWanted(const std::string& folder, const InstanceSpec& spec);
Result<InstanceSpec> ReadWanted(const std::string& folder);
/// After this it is not wanted. Safe to call again.
Status RemoveWanted(const std::string& folder);

Status WriteState(const std::string& folder, const KeptState& state);
Result<KeptState> ReadState(const std::string& folder);

enum class Phase {
  kNotBegun,  // the keeper has not come to it
  kRunning,
  kNotStarted,  // `code`, `detail`: why
  kEnded,       // `status`, `detail`
};

struct Record {
  Phase phase = Phase::kNotBegun;
  pid_t pid = 0;  // the command, while it runs
  uint64_t start_ticks = 0;
  Code code = Code::kUnknown;
  int status = 0;        // of waitpid
  bool told_to = false;  // the keeper was told to end it, or had no ground for too long
  std::string detail;    // one sentence
};

/// The keeper's end of it. Its space on disk is taken beforehand: an end can be written down even
/// when the disk is full.
class RecordFile {
 public:
  static Result<RecordFile> Create(const std::string& folder);
  Status Write(const Record& record);

 private:
  explicit RecordFile(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

/// A missing or damaged record is of one that has not begun.
Record ReadRecord(const std::string& folder);
void RemoveRecord(const std::string& folder);

/// Differs each time the machine is started.
const std::string& BootId();

}  // namespace umbel::orchestrator
