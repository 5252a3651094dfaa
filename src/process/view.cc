#include "process/view.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

namespace umbel::process {
namespace {

namespace fs = std::filesystem;

/// Folders with programs and libraries; on many systems all but the first are links into it.
constexpr const char* kSystem[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
/// What programs look up there, and nothing that is secret.
constexpr const char* kSettings[] = {
    "/etc/alternatives",    "/etc/fonts",       "/etc/group",         "/etc/hosts",
    "/etc/ld.so.cache",     "/etc/ld.so.conf",  "/etc/localtime",     "/etc/ld.so.conf.d",
    "/etc/mime.types",      "/etc/magic",       "/etc/nsswitch.conf", "/etc/os-release",
    "/etc/passwd",          "/etc/resolv.conf", "/etc/ssl/certs",     "/etc/timezone",
    "/etc/ssl/openssl.cnf", "/etc/pki/ca-trust"};
constexpr const char* kDevices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                    "/dev/urandom"};
/// How many cores there are, and how they lie.
constexpr const char* kMachine[] = {"/sys/devices/system/cpu", "/sys/devices/system/node"};
constexpr std::pair<const char*, const char*> kLinks[] = {{"/proc/self/fd", "dev/fd"},
                                                          {"/proc/self/fd/0", "dev/stdin"},
                                                          {"/proc/self/fd/1", "dev/stdout"},
                                                          {"/proc/self/fd/2", "dev/stderr"}};
constexpr const char* kTemporary = "/tmp";
/// Any folder will do to put the new root on, as what is shown is held by then.
constexpr const char* kPlace = "/usr";

struct Piece {
  std::string from;  // without symbolic links
  bool writable = false;
  bool device = false;
  bool alias = false;  // another name of a piece
  Fd tree;
  mode_t mode = 0;
};
/// By where they are seen: what holds others comes before them.
using Pieces = std::map<std::string, Piece>;

Error Trouble(std::string_view what, std::string_view path) {
  // Never kNotFound, which is for the program.
  Error error = SystemError(what, path);
  error.code = Code::kFailedPrecondition;
  return error;
}

Result<std::string> Resolve(const std::string& path) {
  char real[PATH_MAX];
  if (::realpath(path.c_str(), real) == nullptr) return Fail(Trouble("show", path));
  return std::string(real);
}

bool IsBelow(std::string_view path, std::string_view folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

Status Add(Pieces& pieces, const std::string& path, bool writable, bool device = false) {
  if (!path.starts_with('/'))
    return Fail(Code::kInvalidArgument, fmt::format("'{}' cannot be shown: not absolute", path));
  UMBEL_ASSIGN(const std::string real, Resolve(path));
  std::string name = fs::path(path).lexically_normal().native();
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  if (real == "/" || name == "/")
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be shown: it is all there is", path));
  const auto put = [&](const std::string& at, bool alias) {
    Piece& piece = pieces[at];
    piece.from = real;
    piece.writable = piece.writable || writable;
    piece.device = piece.device || device;
    piece.alias = alias;
  };
  put(real, false);
  if (name != real) put(name, true);
  return {};
}

/// What every view has, as far as this machine has it.
Status AddSystem(Pieces& pieces) {
  const auto add = [&](const char* path, bool device) -> Status {
    return ::access(path, F_OK) == 0 ? Add(pieces, path, false, device) : Status();
  };
  for (const char* path : kSystem) UMBEL_TRY(add(path, false));
  for (const char* path : kSettings) UMBEL_TRY(add(path, false));
  for (const char* path : kMachine) UMBEL_TRY(add(path, false));
  for (const char* path : kDevices) UMBEL_TRY(add(path, true));
  return {};
}

/// Leaves out what is seen already, being below another piece that is no different. Below /tmp
/// nothing is: that is another folder there.
void LeaveOutInner(Pieces& pieces) {
  for (auto it = pieces.begin(); it != pieces.end();) {
    const std::pair<const std::string, Piece>* outer = nullptr;
    for (auto other = pieces.begin(); other != it; ++other)
      if (IsBelow(it->first, other->first)) outer = &*other;  // the last one is the innermost
    const Piece& piece = it->second;
    const bool seen = outer && outer->first != kTemporary && outer->second.device == piece.device &&
                      (piece.alias || outer->second.writable == piece.writable);
    it = seen ? pieces.erase(it) : std::next(it);
  }
}

Status Restrict(int fd, const char* path, unsigned flags, uint64_t attributes) {
  mount_attr wanted{};
  wanted.attr_set = attributes;
  if (::mount_setattr(fd, path, flags, &wanted, sizeof wanted) != 0)
    return Fail(Trouble("restrict", path[0] == '\0' ? "what is shown" : path));
  return {};
}

/// Holds all of it, so that nothing has to be found any more once the root is another.
Status Hold(Pieces& pieces) {
  for (auto& [at, piece] : pieces) {
    struct stat about {};
    if (::stat(piece.from.c_str(), &about) != 0) return Fail(Trouble("show", piece.from));
    piece.mode = about.st_mode;
    piece.tree = Fd(::open_tree(AT_FDCWD, piece.from.c_str(),
                                OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    if (!piece.tree.valid()) return Fail(Trouble("show", piece.from));
    uint64_t attributes = MOUNT_ATTR_NOSUID;
    if (!piece.writable) attributes |= MOUNT_ATTR_RDONLY;
    if (!piece.device && !piece.from.starts_with("/dev/")) attributes |= MOUNT_ATTR_NODEV;
    UMBEL_TRY(Restrict(piece.tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, attributes));
  }
  return {};
}

/// The folder of `path` below `root`, made if need be. Symbolic links are not followed: who made
/// them is not known, and they would lead out of the new root.
Result<Fd> MakeFolder(int root, std::string_view path) {
  Fd at(::openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const fs::path& part : fs::path(path).relative_path()) {
    if (::mkdirat(at.get(), part.c_str(), 0755) != 0 && errno != EEXIST)
      return Fail(Trouble("make room for", path));
    Fd next(::openat(at.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return Fail(Trouble("make room for", path));
    at = std::move(next);
  }
  return at;
}

/// Puts a held piece where it is to be seen.
Status Place(int root, const std::string& at, const Piece& piece) {
  const fs::path path(at);
  UMBEL_ASSIGN(const Fd folder, MakeFolder(root, path.parent_path().native()));
  const std::string name = path.filename().native();
  if (S_ISDIR(piece.mode)) {
    if (::mkdirat(folder.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
      return Fail(Trouble("make room for", at));
  } else {
    const Fd file(::openat(folder.get(), name.c_str(),
                           O_CREAT | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0444));
    if (!file.valid() && errno != ENXIO && errno != EACCES)
      return Fail(Trouble("make room for", at));
  }
  // Without MOVE_MOUNT_T_SYMLINKS: a link in this place is no place.
  if (::move_mount(piece.tree.get(), "", folder.get(), name.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return Fail(Trouble("show", at));
  return {};
}

Status MountTmpfs(const char* at, const char* options) {
  if (::mount("tmpfs", at, "tmpfs", MS_NOSUID | MS_NODEV, options) != 0)
    return Fail(Trouble("mount", at));
  return {};
}

}  // namespace

Result<Fd> EnterView(const View& view) {
  // Nothing that happens here is to be seen outside.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return Fail(Trouble("make private", "/"));
  Pieces pieces;
  UMBEL_TRY(AddSystem(pieces));
  if (!view.temporary.empty()) {
    Piece& piece = pieces[kTemporary];
    UMBEL_ASSIGN(piece.from, Resolve(view.temporary));
    piece.writable = true;
  }
  for (const std::string& path : view.shown) UMBEL_TRY(Add(pieces, path, false));
  for (const std::string& path : view.writable) UMBEL_TRY(Add(pieces, path, true));
  LeaveOutInner(pieces);
  UMBEL_TRY(Hold(pieces));

  UMBEL_TRY(MountTmpfs(kPlace, "mode=0755"));
  if (::chdir(kPlace) != 0) return Fail(Trouble("enter", kPlace));
  const Fd root(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const char* folder : {"/proc", "/dev/shm", "/tmp", "/var"})
    UMBEL_TRY(MakeFolder(root.get(), folder));
  if (view.temporary.empty()) UMBEL_TRY(MountTmpfs("tmp", "mode=1777"));
  UMBEL_TRY(MountTmpfs("dev/shm", "mode=1777"));
  for (const auto& [at, piece] : pieces) {
    // Not the link itself but what it leads to would be shown; and "/lib" may be in many a path.
    struct stat about {};
    if (piece.alias && fs::path(at).parent_path() == "/" && ::lstat(at.c_str(), &about) == 0 &&
        S_ISLNK(about.st_mode)) {
      if (::symlinkat(piece.from.c_str(), root.get(), at.c_str() + 1) != 0)
        return Fail(Trouble("make", at));
      continue;
    }
    UMBEL_TRY(Place(root.get(), at, piece));
  }
  for (const auto& [to, at] : kLinks)
    if (::symlinkat(to, root.get(), at) != 0) return Fail(Trouble("make", at));
  if (::symlinkat("/tmp", root.get(), "var/tmp") != 0) return Fail(Trouble("make", "/var/tmp"));

  if (::mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return Fail(Trouble("mount", "/proc"));
  Fd proc(::open_tree(AT_FDCWD, "proc", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!proc.valid()) return Fail(Trouble("open", "/proc"));
  // Much in it can be written by whoever has root's number, whatever else he may.
  UMBEL_TRY(Restrict(AT_FDCWD, "proc", 0, MOUNT_ATTR_RDONLY));
  UMBEL_TRY(Restrict(AT_FDCWD, ".", 0, MOUNT_ATTR_RDONLY));
  // The old root comes to lie on the new one, and is taken away.
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return Fail(Trouble("change", "the root"));
  if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return Fail(Trouble("leave", "the old root"));
  return proc;
}

}  // namespace umbel::process
