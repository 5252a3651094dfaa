// The objects of one message, in one file that is only appended to. One thread adds; any thread may
// Find and Read what was added before it asked. objects(), size() and Index() are for the one that
// adds.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/file.h"
#include "base/ids.h"
#include "base/result.h"

namespace umbel::flower {

struct FileRange {
  uint64_t offset = 0;
  uint64_t size = 0;

  bool operator==(const FileRange&) const = default;
};

/// An object is `head`, then `body` of the spool's file. A small one is all head.
struct StoredObject {
  std::string head;
  FileRange body;

  uint64_t size() const { return head.size() + body.size; }
  bool operator==(const StoredObject&) const = default;
};

class Spool {
 public:
  /// path  "": a temporary file without a name (in $TMPDIR, else /var/tmp; never in memory).
  /// errors  kAlreadyExists; kResourceExhausted: the disk is full; kUnavailable.
  static Result<std::shared_ptr<Spool>> Create(const std::string& path);
  /// Opens what an earlier process left; `index` is what Index() returned.
  /// errors  kNotFound; kDataLoss: the file is shorter than the index says, or the index is broken.
  static Result<std::shared_ptr<Spool>> Open(const std::string& path, std::string_view index);

  /// Appends bytes; they belong to no object yet.
  /// errors  kResourceExhausted: the disk is full.
  Result<FileRange> Append(std::span<const char> bytes);
  /// The next Append goes to `offset` or later: another process has written up to there.
  void SkipTo(uint64_t offset);
  /// Names an object; one that has the name keeps it. The caller has checked that it hashes to
  /// `id`.
  void Add(const ObjectId& id, StoredObject object);
  /// Appends the whole object's bytes and names it; below 4 KiB it becomes all head.
  Status Put(const ObjectId& id, std::string_view whole);

  const StoredObject* Find(const ObjectId& id) const;  // nullptr: not here
  /// errors  kNotFound; kResourceExhausted: longer than `max`; kDataLoss: the file is shorter.
  Result<std::string> Read(const ObjectId& id, uint64_t max) const;
  Result<std::string> Read(const FileRange& range) const;
  const std::unordered_map<ObjectId, StoredObject>& objects() const { return objects_; }
  int fd() const { return file_.get(); }
  uint64_t size() const { return end_; }
  /// All objects, for a journal: opaque, versioned, checked on the way back.
  std::string Index() const;

 private:
  explicit Spool(Fd file) : file_(std::move(file)) {}

  Fd file_;
  uint64_t end_ = 0;
  mutable std::mutex mutex_;  // of objects_, whose nodes stay where they are
  std::unordered_map<ObjectId, StoredObject> objects_;
};

}  // namespace umbel::flower
