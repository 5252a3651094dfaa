// One preallocated file of the segments. Safe from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace umbel::store {

class DataFile {
 public:
  /// Creates `<directory>/<folder>/<name>` with room for `size` bytes, or less but at least
  /// `size_min` when the disk is nearly full. directory "": a temporary file without a name.
  /// total  counts the bytes of all files; outlives this one.
  /// errors  kResourceExhausted: not even size_min.
  static Result<std::shared_ptr<DataFile>> Create(const std::string& directory,
                                                  const std::string& folder,
                                                  const std::string& name, uint64_t size,
                                                  uint64_t size_min,
                                                  std::shared_ptr<std::atomic<uint64_t>> total);
  /// Opens one that an earlier process left.
  static Result<std::shared_ptr<DataFile>> Open(const std::string& path,
                                                std::shared_ptr<std::atomic<uint64_t>> total);

  DataFile(Fd fd, std::string path, uint64_t size, std::shared_ptr<std::atomic<uint64_t>> total);
  ~DataFile();

  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_; }

  Status Write(uint64_t offset, std::span<const char> bytes);
  /// errors  kDataLoss: the file ends earlier.
  Result<std::string> Read(uint64_t offset, uint64_t size);
  /// What was written before the call is on the disk after it. One fdatasync at a time: those that
  /// come while it runs share the next one. A failure stays: the kernel reports a lost page once.
  Status Sync();
  /// Removes the name; the space goes with the last holder.
  void Unlink();

 private:
  Status SyncNow();

  const Fd fd_;
  const std::string path_;  // "" has no name
  const uint64_t size_;
  const std::shared_ptr<std::atomic<uint64_t>> total_;

  std::mutex mutex_;
  std::condition_variable finished_one_;
  uint64_t started_ = 0;
  uint64_t finished_ = 0;
  bool running_ = false;
  Status failure_;
  bool folders_synced_ = false;  // only by the one that syncs
};

/// fdatasync of every segment file below `directory`; a missing one is fine.
Status SyncTree(const std::string& directory);

}  // namespace umbel::store
