#include "store/segment_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

namespace umbel::store {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kIoBytesMax = uint64_t{1} << 30;  // one call moves less than 2 GiB

Status SyncFolder(const fs::path& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0)
    return Fail(SystemError("sync the folder", path.native()));
  return {};
}

Result<Fd> OpenTemporary() {
  std::error_code error;
  fs::path folder = fs::temp_directory_path(error);
  if (error) folder = "/tmp";
  Fd fd(::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  // Not every file system can do that.
  std::string path = folder.native() + "/umbel-XXXXXX";
  fd = Fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return Fail(SystemError("create a temporary file in", folder.native()));
  ::unlink(path.c_str());
  return fd;
}

Result<Fd> OpenNew(const std::string& folder, const std::string& path) {
  // The folder may be removed by the end of an earlier run between the two steps.
  for (int attempt = 0;; ++attempt) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
      return Fail(SystemError("create the folder", folder));
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (fd.valid()) return fd;
    if (errno != ENOENT || attempt == 10) return Fail(SystemError("create", path));
  }
}

/// returns what was set aside: size, or size_min
Result<uint64_t> Reserve(int fd, const std::string& path, uint64_t size, uint64_t size_min) {
  for (;;) {
    if (::fallocate(fd, 0, 0, static_cast<off_t>(size)) == 0) return size;
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS) break;
    const bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    if (full && size > size_min) {
      size = size_min;
      continue;
    }
    Error error = SystemError(fmt::format("set {} bytes aside in", size), path);
    if (full) error.code = Code::kResourceExhausted;
    return Fail(std::move(error));
  }
  // No preallocation here: the file grows as it is written, and a full disk shows then.
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return Fail(SystemError("extend", path));
  return size;
}

}  // namespace

Result<std::shared_ptr<DataFile>> DataFile::Create(const std::string& directory,
                                                   const std::string& folder,
                                                   const std::string& name, uint64_t size,
                                                   uint64_t size_min,
                                                   std::shared_ptr<std::atomic<uint64_t>> total) {
  const bool named = !directory.empty();
  const std::string folder_path = directory + "/" + folder;
  const std::string path = named ? folder_path + "/" + name : std::string();
  UMBEL_ASSIGN(Fd fd, named ? OpenNew(folder_path, path) : OpenTemporary());
  Result<uint64_t> reserved = Reserve(fd.get(), named ? path : "temporary segment", size, size_min);
  if (!reserved.ok()) {
    if (named) ::unlink(path.c_str());
    return Fail(std::move(reserved).error());
  }
  return std::make_shared<DataFile>(std::move(fd), path, *reserved, std::move(total));
}

Result<std::shared_ptr<DataFile>> DataFile::Open(const std::string& path,
                                                 std::shared_ptr<std::atomic<uint64_t>> total) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) return Fail(SystemError("open", path));
  return std::make_shared<DataFile>(std::move(fd), path, static_cast<uint64_t>(info.st_size),
                                    std::move(total));
}

DataFile::DataFile(Fd fd, std::string path, uint64_t size,
                   std::shared_ptr<std::atomic<uint64_t>> total)
    : fd_(std::move(fd)), path_(std::move(path)), size_(size), total_(std::move(total)) {
  *total_ += size_;
}

DataFile::~DataFile() { *total_ -= size_; }

Status DataFile::Write(uint64_t offset, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n =
        ::pwrite(fd_.get(), bytes.data(), std::min<uint64_t>(bytes.size(), kIoBytesMax),
                 static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("write", path_));
    offset += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<std::string> DataFile::Read(uint64_t offset, uint64_t size) {
  // Asked first: a damaged row must not make us allocate what the file cannot hold.
  if (offset > size_ || size > size_ - offset)
    return Fail(Code::kDataLoss,
                fmt::format("'{}' has {} bytes, {} at {} were wanted", path_, size_, size, offset));
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n =
        ::pread(fd_.get(), bytes.data() + done, std::min<uint64_t>(size - done, kIoBytesMax),
                static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("read", path_));
    if (n == 0) return Fail(Code::kDataLoss, fmt::format("'{}' ends early", path_));
    done += static_cast<size_t>(n);
  }
  return bytes;
}

Status DataFile::Sync() {
  std::unique_lock lock(mutex_);
  // One that runs already may have passed over what we wrote.
  const uint64_t wanted = started_ + 1;
  while (finished_ < wanted) {
    if (running_) {
      finished_one_.wait(lock);
      continue;
    }
    running_ = true;
    const uint64_t number = ++started_;
    lock.unlock();
    Status status = SyncNow();
    lock.lock();
    running_ = false;
    finished_ = number;
    if (!status.ok() && failure_.ok()) failure_ = std::move(status);
    finished_one_.notify_all();
  }
  return failure_;
}

Status DataFile::SyncNow() {
  if (::fdatasync(fd_.get()) != 0) return Fail(SystemError("sync", path_));
  if (folders_synced_ || path_.empty()) return {};
  const fs::path folder = fs::path(path_).parent_path();
  UMBEL_TRY(SyncFolder(folder));
  UMBEL_TRY(SyncFolder(folder.parent_path()));
  folders_synced_ = true;
  return {};
}

void DataFile::Unlink() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

Status SyncTree(const std::string& directory) {
  std::error_code error;
  for (const fs::directory_entry& run : fs::directory_iterator(directory, error)) {
    if (!run.is_directory()) continue;
    for (const fs::directory_entry& file : fs::directory_iterator(run.path(), error)) {
      if (file.path().extension() != ".seg") continue;
      const Fd fd(::open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
      if (!fd.valid() || ::fdatasync(fd.get()) != 0)
        return Fail(SystemError("sync", file.path().native()));
    }
    UMBEL_TRY(SyncFolder(run.path()));
  }
  return {};
}

}  // namespace umbel::store
