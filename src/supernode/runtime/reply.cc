#include "supernode/runtime/reply.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tensor/object.h"

namespace umbel::supernode {
namespace {

constexpr uint64_t kSmall = 64 * 1024;  // collected in memory, written at once

}  // namespace

Result<std::shared_ptr<flower::Spool>> FreshSpool(const std::string& path) {
  if (!path.empty() && ::unlink(path.c_str()) != 0 && errno != ENOENT)
    return Fail(SystemError("remove", path));
  return flower::Spool::Create(path);
}

ReplyIntake::ReplyIntake(flower::Parcel parcel, std::vector<ObjectId> ids, std::string session)
    : parcel_(std::move(parcel)),
      ids_(std::move(ids)),
      session_(std::move(session)),
      missing_(ids_.begin(), ids_.end()) {}

ReplyIntake::Upload ReplyIntake::Check(const ObjectId& id, std::string_view session) const {
  if (!session.empty() && session != session_) return Upload::kRefused;
  if (missing_.contains(id)) return Upload::kWanted;
  return parcel_.objects->Find(id) ? Upload::kHere : Upload::kRefused;
}

std::vector<ObjectId> ReplyIntake::Missing() const {
  std::vector<ObjectId> missing;
  for (const ObjectId& id : ids_)
    if (missing_.contains(id)) missing.push_back(id);
  return missing;
}

flower::FileRange ReplyIntake::Allocate(uint64_t size) {
  for (flower::FileRange& range : free_) {
    if (range.size < size) continue;
    const flower::FileRange taken = range;
    range = free_.back();
    free_.pop_back();
    return taken;
  }
  flower::Spool& spool = *parcel_.objects;
  const flower::FileRange range{spool.size(), size};
  spool.SkipTo(range.offset + size);
  return range;
}

ObjectIntake::ObjectIntake(std::shared_ptr<ReplyIntake> reply, uint64_t size)
    : reply_(std::move(reply)), size_(size) {
  if (reply_ && size_ > kSmall) room_ = reply_->Allocate(size_);
}

ObjectIntake::~ObjectIntake() {
  if (room_.size > 0) reply_->free_.push_back(room_);
}

Status ObjectIntake::Add(std::span<const char> bytes) {
  hash_.Update(bytes);
  if (!head_known_ && !malformed_) ReadHead({bytes.data(), bytes.size()});
  if (!reply_) {
    // Nobody waits for it.
  } else if (room_.size == 0) {
    small_.append(bytes.data(), bytes.size());
  } else {
    const uint64_t at = room_.offset + taken_;
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::pwrite(reply_->parcel_.objects->fd(), bytes.data() + done,
                                 bytes.size() - done, static_cast<off_t>(at + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(SystemError("write", "the reply's spool"));
      done += static_cast<size_t>(n);
    }
  }
  taken_ += bytes.size();
  return {};
}

bool ObjectIntake::Matches(const ObjectId& id) {
  return taken_ == size_ && head_known_ && !malformed_ && hash_.Finish() == id;
}

Status ObjectIntake::Keep(const ObjectId& id) {
  if (reply_->missing_.contains(id)) {  // the same upload may have come twice, side by side
    if (room_.size == 0) {
      UMBEL_TRY(reply_->parcel_.objects->Put(id, small_));
    } else {
      flower::StoredObject object;
      object.body = {room_.offset, size_};
      reply_->parcel_.objects->Add(id, std::move(object));
      room_ = {};
    }
    reply_->missing_.erase(id);
  }
  return {};
}

void ObjectIntake::ReadHead(std::string_view bytes) {
  // The head is in the first piece but for records of thousands of entries.
  std::string_view prefix = bytes;
  if (!head_.empty() || taken_ > 0) {
    head_.append(bytes);
    if (head_.size() < next_try_) return;
    prefix = head_;
  }
  const auto head = tensor::ParseObjectHead(prefix);
  if (!head.ok()) {
    malformed_ = true;
  } else if (*head) {
    head_known_ = true;
    malformed_ = (*head)->head_size + (*head)->body_size != size_;
  } else {
    if (head_.empty()) head_.assign(bytes);
    next_try_ = std::min<uint64_t>(size_, prefix.size() * 2);
    return;
  }
  head_.clear();
  head_.shrink_to_fit();
}

}  // namespace umbel::supernode
