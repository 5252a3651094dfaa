// A ClientApp's reply while its objects come in. Belongs to the io_context thread, but for
// ObjectIntake::Add.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/records.h"
#include "flower/spool.h"
#include "tensor/sha256.h"

namespace umbel::supernode {

/// Empty, at `path`; what another attempt has left there is removed.
Result<std::shared_ptr<flower::Spool>> FreshSpool(const std::string& path);

class ReplyIntake {
 public:
  /// ids      of the parcel's tree, each once.
  /// session  what this push is called.
  ReplyIntake(flower::Parcel parcel, std::vector<ObjectId> ids, std::string session);

  enum class Upload { kRefused, kHere, kWanted };
  /// session  "": whichever lists the object.
  Upload Check(const ObjectId& id, std::string_view session) const;
  /// In the order of the tree.
  std::vector<ObjectId> Missing() const;
  bool complete() const { return missing_.empty(); }

  const flower::Parcel& parcel() const { return parcel_; }
  const std::string& session() const { return session_; }

 private:
  friend class ObjectIntake;

  /// Room in the spool's file that nobody else writes to; what a failed upload left comes first.
  flower::FileRange Allocate(uint64_t size);

  flower::Parcel parcel_;
  const std::vector<ObjectId> ids_;
  const std::string session_;
  std::unordered_set<ObjectId> missing_;
  std::vector<flower::FileRange> free_;
};

/// Takes one object's bytes as they come: hashes them, checks the head, spools them if it is large.
class ObjectIntake {
 public:
  /// reply  null: the bytes are only checked.
  ObjectIntake(std::shared_ptr<ReplyIntake> reply, uint64_t size);
  ~ObjectIntake();
  ObjectIntake(const ObjectIntake&) = delete;
  ObjectIntake& operator=(const ObjectIntake&) = delete;

  /// Blocks on the disk. May be called from any thread, one call after another.
  Status Add(std::span<const char> bytes);
  /// Whether all bytes came, form an object, and are the one that was announced.
  bool Matches(const ObjectId& id);
  /// The object becomes the reply's.
  Status Keep(const ObjectId& id);

 private:
  void ReadHead(std::string_view bytes);

  const std::shared_ptr<ReplyIntake> reply_;
  const uint64_t size_;
  tensor::Sha256 hash_;
  flower::FileRange room_;  // of size 0: the object is small
  std::string small_;
  std::string head_;  // what has come of a head that is longer than the first piece
  uint64_t next_try_ = 0;
  uint64_t taken_ = 0;
  bool head_known_ = false;
  bool malformed_ = false;
};

}  // namespace umbel::supernode
