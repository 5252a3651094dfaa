// The output of one instance, bounded: files `log.<offset of their first byte>` in its folder, of
// which the oldest goes when there are two full ones. Offsets count from the instance's begin, over
// all its starts. LogWriter: one thread, and one at a time for a folder; ReadLog: any thread and
// process.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "orchestrator/ground.h"

namespace umbel::orchestrator {

class LogWriter {
 public:
  /// Goes on behind what is there. bytes_max: what is kept at most, 2 or more.
  LogWriter(std::string folder, uint64_t bytes_max);

  /// Never fails, as nobody could be told: what the disk does not take is left out, and the log
  /// says how much that was as soon as it takes something again.
  void Append(std::string_view text);

 private:
  /// How many bytes at the end of the text were not written.
  size_t Write(std::string_view text);
  bool Next();

  std::string folder_;
  uint64_t half_;
  Fd file_;
  uint64_t begin_ = 0;  // offset of the newest file's first byte
  uint64_t size_ = 0;   // of the newest file
  std::string older_;   // path of the one before, "": none
  std::string path_;
  uint64_t lost_ = 0;
};

/// No more is read at once, whatever is asked for.
inline constexpr size_t kLogReadMax = size_t{4} << 20;

/// What is there from `offset` on, or from the oldest byte that is kept. `ended` stays false.
Result<LogPart> ReadLog(const std::string& folder, uint64_t offset, size_t limit);

}  // namespace umbel::orchestrator
