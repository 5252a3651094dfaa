#include "flower/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

constexpr size_t kSmallObject = 4096;
constexpr std::string_view kIndexMagic = "umbel spool 1\n";

template <typename T>
void AppendRaw(T value, std::string& out) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

/// Reads what Index() wrote; `ok` says whether everything was there.
struct IndexReader {
  std::string_view left;
  bool ok = true;

  std::string_view Take(uint64_t size) {
    ok = ok && size <= left.size();
    const std::string_view taken = left.substr(0, ok ? size : 0);
    left.remove_prefix(taken.size());
    return taken;
  }
  uint64_t Number() {
    uint64_t value = 0;
    const std::string_view bytes = Take(sizeof value);
    if (ok) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
};

std::string_view Text(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

Result<Fd> Unnamed() {
  const char* folder = std::getenv("TMPDIR");
  const std::string in = folder != nullptr && *folder != '\0' ? folder : "/var/tmp";
  Fd file(::open(in.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.valid()) return file;
  // Not every file system has nameless files.
  std::string pattern = in + "/umbel-spool-XXXXXX";
  file = Fd(::mkostemp(pattern.data(), O_CLOEXEC));
  if (!file.valid()) return Fail(SystemError("create a file in", in));
  ::unlink(pattern.c_str());
  return file;
}

Result<uint64_t> FileSize(int fd) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return Fail(SystemError("look at", "spool"));
  return static_cast<uint64_t>(info.st_size);
}

bool Inside(const FileRange& range, uint64_t end) {
  return range.offset <= end && range.size <= end - range.offset;
}

tl::unexpected<Error> Shorter(const FileRange& range, uint64_t size) {
  return Fail(Code::kDataLoss, fmt::format("spool: its {} bytes have no {} bytes at {}", size,
                                           range.size, range.offset));
}

/// Appends the range, which is inside the file, to `out`.
Status ReadInto(int fd, const FileRange& range, std::string& out) {
  const size_t start = out.size();
  out.resize(start + range.size);
  for (uint64_t done = 0; done < range.size;) {
    const ssize_t n = ::pread(fd, out.data() + start + done, range.size - done,
                              static_cast<off_t>(range.offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("read", "spool"));
    if (n == 0) return Shorter(range, range.offset + done);
    done += static_cast<uint64_t>(n);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<Spool>> Spool::Create(const std::string& path) {
  if (path.empty()) {
    UMBEL_ASSIGN(Fd file, Unnamed());
    return std::shared_ptr<Spool>(new Spool(std::move(file)));
  }
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid() && errno == EEXIST)
    return Fail(Code::kAlreadyExists, fmt::format("spool '{}' is already there", path));
  if (!file.valid()) return Fail(SystemError("create", path));
  return std::shared_ptr<Spool>(new Spool(std::move(file)));
}

Result<std::shared_ptr<Spool>> Spool::Open(const std::string& path, std::string_view index) {
  const auto broken = [&](std::string_view why) {
    return Fail(Code::kDataLoss, fmt::format("index of spool '{}': {}", path, why));
  };
  constexpr size_t kSum = sizeof(Digest::bytes);
  if (!index.starts_with(kIndexMagic)) return broken("is not one, or of another version");
  if (index.size() < kIndexMagic.size() + kSum) return broken("is cut off");
  const std::string_view covered = index.substr(0, index.size() - kSum);
  if (Text(tensor::Sha256Of(covered)) != index.substr(covered.size())) return broken("is damaged");

  Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file.valid()) return Fail(SystemError("open", path));
  std::shared_ptr<Spool> spool(new Spool(std::move(file)));
  UMBEL_ASSIGN(const uint64_t size, FileSize(spool->fd()));
  IndexReader reader{covered.substr(kIndexMagic.size())};
  spool->end_ = reader.Number();
  if (spool->end_ > size)
    return Fail(Code::kDataLoss,
                fmt::format("spool '{}' has {} bytes, its index says {}", path, size, spool->end_));
  while (reader.ok && !reader.left.empty()) {
    ObjectId id;
    const std::string_view name = reader.Take(id.bytes.size());
    std::copy(name.begin(), name.end(), id.bytes.begin());
    StoredObject object;
    object.head = reader.Take(reader.Number());
    object.body.offset = reader.Number();
    object.body.size = reader.Number();
    if (!Inside(object.body, spool->end_)) return broken("an object lies beyond the file's end");
    spool->Add(id, std::move(object));
  }
  if (!reader.ok) return broken("is cut off");
  return spool;
}

Result<FileRange> Spool::Append(std::span<const char> bytes) {
  const FileRange range{end_, bytes.size()};
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n =
        ::pwrite(fd(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(end_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("write", "spool"));
    done += static_cast<size_t>(n);
  }
  end_ += range.size;
  return range;
}

void Spool::SkipTo(uint64_t offset) { end_ = std::max(end_, offset); }

void Spool::Add(const ObjectId& id, StoredObject object) {
  const std::scoped_lock lock(mutex_);
  objects_.try_emplace(id, std::move(object));
}

Status Spool::Put(const ObjectId& id, std::string_view whole) {
  StoredObject object;
  if (whole.size() < kSmallObject) {
    object.head = whole;
  } else {
    UMBEL_ASSIGN(object.body, Append(whole));
  }
  Add(id, std::move(object));
  return {};
}

const StoredObject* Spool::Find(const ObjectId& id) const {
  const std::scoped_lock lock(mutex_);
  const auto found = objects_.find(id);
  return found == objects_.end() ? nullptr : &found->second;
}

Result<std::string> Spool::Read(const ObjectId& id, uint64_t max) const {
  const StoredObject* object = Find(id);
  if (object == nullptr)
    return Fail(Code::kNotFound, fmt::format("object {} is not in the spool", id.Hex()));
  if (object->size() > max)
    return Fail(Code::kResourceExhausted,
                fmt::format("object {} has {} bytes, more than {}", id.Hex(), object->size(), max));
  std::string whole = object->head;
  UMBEL_ASSIGN(const uint64_t size, FileSize(fd()));
  if (!Inside(object->body, size)) return Shorter(object->body, size);
  UMBEL_TRY(ReadInto(fd(), object->body, whole));
  return whole;
}

Result<std::string> Spool::Read(const FileRange& range) const {
  UMBEL_ASSIGN(const uint64_t size, FileSize(fd()));
  // Before the memory is taken: what another process says about a file may be anything.
  if (!Inside(range, size)) return Shorter(range, size);
  std::string bytes;
  UMBEL_TRY(ReadInto(fd(), range, bytes));
  return bytes;
}

std::string Spool::Index() const {
  std::vector<const std::pair<const ObjectId, StoredObject>*> sorted;
  sorted.reserve(objects_.size());
  for (const auto& entry : objects_) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->first < b->first; });
  std::string index(kIndexMagic);
  AppendRaw(end_, index);
  for (const auto* entry : sorted) {
    const auto& [id, object] = *entry;
    index += Text(id);
    AppendRaw(uint64_t{object.head.size()}, index);
    index += object.head;
    AppendRaw(object.body.offset, index);
    AppendRaw(object.body.size, index);
  }
  index += Text(tensor::Sha256Of(index));
  return index;
}

}  // namespace umbel::flower
