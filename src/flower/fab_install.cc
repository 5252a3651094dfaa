#include "flower/fab_install.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "flower/fab_zip.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

namespace fs = std::filesystem;

/// Holds the FAB's hash. An entry of that name does not get in: it is made first, and never opened
/// twice.
constexpr std::string_view kMarker = ".umbel-fab";
constexpr std::string_view kPartPrefix = ".part-";

tl::unexpected<Error> Failed(std::string_view what, const std::string& path) {
  Error error = SystemError(what, path);
  error.message = "FAB: " + error.message;
  return Fail(std::move(error));
}

tl::unexpected<Error> Conflict(const std::string& name) {
  return Fail(Code::kInvalidArgument,
              fmt::format("FAB entry {}: is in the place of another", tensor::Quote(name, 80)));
}

Status WriteAll(int fd, std::span<const char> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed("write", path);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

/// A folder being unpacked; removed unless it is kept.
class Part {
 public:
  static Result<Part> Make(const InstallOptions& options, const FabInfo& fab) {
    static std::atomic<uint64_t> counter{0};
    Part part(fmt::format("{}/{}{}-{}-{}", options.root, kPartPrefix, fab.hash.Hex().substr(0, 8),
                          ::getpid(), counter++),
              options.readable_by);
    // Left by a process of the same number, which is no more.
    std::error_code ignored;
    fs::remove_all(part.path_, ignored);
    UMBEL_TRY(part.MakeFolder(part.path_));
    UMBEL_TRY(part.WriteMarker(fab.hash.Hex()));
    return part;
  }
  Part(Part&& other) noexcept : path_(std::exchange(other.path_, {})), group_(other.group_) {}
  Part& operator=(Part&&) = delete;
  ~Part() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

  Status Unpack(const FabZip& zip) {
    for (size_t i = 0; i < zip.entries().size(); ++i) {
      const FabEntry& entry = zip.entries()[i];
      UMBEL_TRY(MakeFoldersOf(entry.name));
      if (!entry.folder) UMBEL_TRY(WriteFile(zip, i));
    }
    return {};
  }

 private:
  Part(std::string path, std::optional<gid_t> group) : path_(std::move(path)), group_(group) {}

  Status Share(int fd, const std::string& path, mode_t mode) const {
    if (group_ && ::fchown(fd, static_cast<uid_t>(-1), *group_) != 0)
      return Failed("give to the group", path);
    if (::fchmod(fd, mode) != 0) return Failed("chmod", path);
    return {};
  }

  Status MakeFolder(const std::string& path) const {
    if (::mkdir(path.c_str(), 0700) != 0) return Failed("create folder", path);
    const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return Failed("open", path);
    return Share(fd.get(), path, group_ ? 0750 : 0700);
  }

  /// Every folder that `name` passes through; itself, if it ends in '/'.
  Status MakeFoldersOf(const std::string& name) const {
    for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
      const std::string path = path_ + "/" + name.substr(0, slash);
      struct stat found {};
      if (::lstat(path.c_str(), &found) != 0) {
        UMBEL_TRY(MakeFolder(path));
      } else if (!S_ISDIR(found.st_mode)) {
        return Conflict(name);
      }
    }
    return {};
  }

  Result<Fd> Create(const std::string& path) const {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid()) return Failed("create", path);
    UMBEL_TRY(Share(fd.get(), path, group_ ? 0640 : 0600));
    return fd;
  }

  Status WriteMarker(const std::string& hash) const {
    const std::string path = fmt::format("{}/{}", path_, kMarker);
    UMBEL_ASSIGN(const Fd fd, Create(path));
    UMBEL_TRY(WriteAll(fd.get(), hash, path));
    // After a power cut a folder must at least be known as ours, to be replaced.
    if (::fdatasync(fd.get()) != 0) return Failed("write", path);
    return {};
  }

  Status WriteFile(const FabZip& zip, size_t index) const {
    const std::string& name = zip.entries()[index].name;
    const std::string path = path_ + "/" + name;
    struct stat found {};
    if (::lstat(path.c_str(), &found) == 0) return Conflict(name);
    UMBEL_ASSIGN(const Fd fd, Create(path));
    Status written;
    UMBEL_TRY(zip.Stream(index, [&](std::span<const char> bytes) {
      if (written.ok()) written = WriteAll(fd.get(), bytes, path);
    }));
    return written;
  }

  std::string path_;
  std::optional<gid_t> group_;
};

/// True if the file's next bytes are these.
bool NextAre(int fd, std::span<const char> expected) {
  char buffer[16384];
  while (!expected.empty()) {
    const ssize_t n = ::read(fd, buffer, std::min(sizeof buffer, expected.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || !std::equal(buffer, buffer + n, expected.begin())) return false;
    expected = expected.subspan(static_cast<size_t>(n));
  }
  return true;
}

/// True if every entry is in the folder as the archive has it.
Result<bool> IsWhole(const std::string& folder, const FabZip& zip) {
  for (size_t i = 0; i < zip.entries().size(); ++i) {
    const FabEntry& entry = zip.entries()[i];
    const std::string path = folder + "/" + entry.name;
    struct stat found {};
    if (entry.folder) {
      const std::string bare = path.substr(0, path.size() - 1);
      if (::lstat(bare.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return false;
      continue;
    }
    const Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid() || ::fstat(fd.get(), &found) != 0 || !S_ISREG(found.st_mode) ||
        static_cast<uint64_t>(found.st_size) != entry.size)
      return false;
    bool same = true;
    UMBEL_TRY(zip.Stream(
        i, [&](std::span<const char> bytes) { same = same && NextAre(fd.get(), bytes); }));
    if (!same) return false;
  }
  return true;
}

enum class Found { kNothing, kWhole, kDamaged };

Result<Found> Look(const std::string& folder, const FabZip& zip, const FabInfo& fab,
                   std::optional<gid_t> group) {
  struct stat found {};
  if (::lstat(folder.c_str(), &found) != 0) {
    if (errno == ENOENT) return Found::kNothing;
    return Failed("look at", folder);
  }
  const auto marker = ReadFile(fmt::format("{}/{}", folder, kMarker), 64);
  if (!S_ISDIR(found.st_mode) || !marker.ok() || *marker != fab.hash.Hex())
    return Fail(Code::kFailedPrecondition,
                fmt::format("'{}' was not made from FAB {}; move it away to run that app", folder,
                            fab.hash.Hex()));
  // Made when another group, or none, was to read it.
  if (group && (found.st_gid != *group || (found.st_mode & 0050) != 0050)) return Found::kDamaged;
  UMBEL_ASSIGN(const bool whole, IsWhole(folder, zip));
  return whole ? Found::kWhole : Found::kDamaged;
}

Status OpenRoot(const InstallOptions& options) {
  UMBEL_TRY(MakeDirectories(options.root));
  if (!options.readable_by) return {};
  if (::chown(options.root.c_str(), static_cast<uid_t>(-1), *options.readable_by) != 0 ||
      ::chmod(options.root.c_str(), 0710) != 0)
    return Failed("give to the group", options.root);
  return {};
}

}  // namespace

std::string InstallPath(const std::string& root, const FabInfo& fab) {
  const size_t slash = fab.fab_id.find('/');
  UMBEL_CHECK(slash != std::string::npos);
  return fmt::format("{}/{}.{}.{}.{}", root, fab.fab_id.substr(0, slash),
                     fab.fab_id.substr(slash + 1), fab.version, fab.hash.Hex().substr(0, 8));
}

Result<std::string> InstallFab(std::string_view zip, const FabInfo& fab,
                               const InstallOptions& options) {
  const std::string folder = InstallPath(options.root, fab);
  UMBEL_ASSIGN(const FabZip archive, FabZip::Open(zip));
  UMBEL_TRY(OpenRoot(options));
  // Twice: another process may be doing the same, and its folder is as good as ours.
  for (int attempt = 0; attempt < 2; ++attempt) {
    UMBEL_ASSIGN(const Found found, Look(folder, archive, fab, options.readable_by));
    if (found == Found::kWhole) return folder;
    UMBEL_ASSIGN(Part part, Part::Make(options, fab));
    UMBEL_TRY(part.Unpack(archive));
    if (found == Found::kDamaged) {
      // Swapped, so that at no moment nothing is there; the damaged one goes with `part`.
      if (::renameat2(AT_FDCWD, part.path().c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) ==
          0)
        return folder;
    } else if (::rename(part.path().c_str(), folder.c_str()) == 0) {
      part.Keep();
      return folder;
    }
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOENT) return Failed("rename", folder);
  }
  return Fail(Code::kUnavailable, fmt::format("FAB: '{}' keeps changing under us", folder));
}

Status CleanInstalls(const std::string& root) {
  std::error_code error;
  if (!fs::exists(root, error)) return {};
  for (fs::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().native().starts_with(kPartPrefix)) continue;
    std::error_code left;
    fs::remove_all(entry->path(), left);
    if (left)
      return Fail(Code::kUnavailable, fmt::format("cannot remove folder '{}': {}",
                                                  entry->path().native(), left.message()));
  }
  if (error)
    return Fail(Code::kUnavailable,
                fmt::format("cannot list folder '{}': {}", root, error.message()));
  return {};
}

}  // namespace umbel::flower
