#include "manager/git.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

#include "base/file.h"
#include "manager/child.h"
#include "tensor/sha256.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kFetchLimit{600};
constexpr std::chrono::seconds kLocalLimit{120};

/// One at a time for each mirror.
std::unique_lock<std::mutex> Turn(const std::string& mirror) {
  static std::mutex all;
  static std::map<std::string, std::mutex> each;
  std::mutex* mine = nullptr;
  {
    const std::lock_guard lock(all);
    mine = &each[mirror];
  }
  return std::unique_lock(*mine);
}

/// The last line that says something, without git's own prefixes.
std::string LastWords(std::string_view errors) {
  std::string found;
  while (!errors.empty()) {
    const size_t end = std::min(errors.find('\n'), errors.size());
    std::string line(errors.substr(0, end));
    errors.remove_prefix(std::min(end + 1, errors.size()));
    for (const std::string_view prefix : {"fatal: ", "error: ", "remote: "})
      if (line.starts_with(prefix)) line.erase(0, prefix.size());
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (line.starts_with("Please make sure") || line.starts_with("and the repository exists"))
      continue;
    found = line;
  }
  return found.substr(0, 300);
}

class Git {
 public:
  Git(const std::string& root, const std::string& token_file, std::stop_token stop)
      : stop_(std::move(stop)) {
    environment_ = ChildEnvironment();
    // Nothing of the user's or the system's configuration: it may run programs.
    for (const char* entry :
         {"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
          "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0",
          "GIT_SSH_COMMAND=ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new"})
      environment_.emplace_back(entry);
    environment_.push_back("GIT_ASKPASS=" + (token_file.empty() ? "/bin/true" : root + "/askpass"));
    if (!token_file.empty()) environment_.push_back("UMBEL_GIT_TOKEN_FILE=" + token_file);
  }

  Result<ChildEnd> Run(std::vector<std::string> arguments, std::chrono::seconds limit,
                       std::vector<std::string> more = {}) const {
    ChildRequest request;
    request.arguments = {"git"};
    for (const char* setting :
         {"core.hooksPath=/dev/null", "core.symlinks=false", "core.fsmonitor=false",
          "protocol.allow=never", "protocol.https.allow=always", "protocol.http.allow=always",
          "protocol.ssh.allow=always", "protocol.git.allow=always", "protocol.file.allow=always",
          "credential.helper=", "gc.auto=0", "safe.directory=*", "http.followRedirects=true"}) {
      request.arguments.emplace_back("-c");
      request.arguments.emplace_back(setting);
    }
    request.arguments.insert(request.arguments.end(), arguments.begin(), arguments.end());
    request.environment = environment_;
    request.environment.insert(request.environment.end(), more.begin(), more.end());
    request.limit = limit;
    return RunChild(request, stop_);
  }

  /// Its output, without the last end of line; errors have git's last words.
  Result<std::string> Ask(std::vector<std::string> arguments, std::chrono::seconds limit,
                          std::vector<std::string> more = {}) const {
    UMBEL_ASSIGN(const ChildEnd end, Run(std::move(arguments), limit, std::move(more)));
    if (end.status != 0) return Fail(Code::kNotFound, LastWords(end.errors));
    std::string output = end.output;
    while (!output.empty() && output.back() == '\n') output.pop_back();
    return output;
  }

 private:
  std::stop_token stop_;
  std::vector<std::string> environment_;
};

Status WriteAskpass(const std::string& root) {
  const std::string path = root + "/askpass";
  if (fs::exists(path)) return {};
  UMBEL_TRY(WriteFileAtomic(path,
                            "#!/bin/sh\n"
                            "case \"$1\" in\n"
                            "  Username*) echo x-access-token ;;\n"
                            "  *) cat \"$UMBEL_GIT_TOKEN_FILE\" ;;\n"
                            "esac\n"));
  return ::chmod(path.c_str(), 0700) == 0 ? Status() : Status(Fail(SystemError("chmod", path)));
}

bool IsCommit(std::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

/// Whether git's words sound as if another time may go better.
bool SoundsPassing(std::string_view words) {
  for (const std::string_view sign :
       {"Could not resolve host", "Connection", "timed out", "early EOF",
        "The requested URL returned "
        "error: 5",
        "unexpected disconnect", "RPC failed", "Failed to connect"})
    if (words.find(sign) != std::string_view::npos) return true;
  return false;
}

Status FetchAll(const Git& git, const std::string& mirror, const Sla& sla) {
  if (!fs::exists(mirror + "/HEAD"))
    if (const auto made =
            git.Ask({"init", "--quiet", "--bare", "--template=", "--", mirror}, kLocalLimit);
        !made.ok())
      return Fail(made.error());
  const auto fetched =
      git.Ask({"--git-dir=" + mirror, "fetch", "--quiet", "--force", "--prune", "--no-tags",
               "--no-recurse-submodules", "--", sla.repository, "+refs/heads/*:refs/heads/*",
               "+refs/tags/*:refs/tags/*", "+HEAD:refs/umbel/head"},
              kFetchLimit);
  if (fetched.ok()) return {};
  if (fetched.error().code != Code::kNotFound) return Fail(fetched.error());
  const std::string& words = fetched.error().message;
  return Fail(SoundsPassing(words) ? Code::kUnavailable : Code::kNotFound,
              fmt::format("ml_repo_url: git cannot fetch '{}': {}. Check the address, and give "
                          "ml_repo_token if it is private",
                          sla.repository, words));
}

Result<std::string> Resolve(const Git& git, const std::string& mirror, const Sla& sla) {
  std::vector<std::string> tries = {"refs/umbel/head"};
  if (!sla.ref.empty()) tries = {"refs/heads/" + sla.ref, "refs/tags/" + sla.ref, sla.ref};
  for (const std::string& name : tries) {
    const auto commit = git.Ask({"--git-dir=" + mirror, "rev-parse", "--quiet", "--verify",
                                 "--end-of-options", name + "^{commit}"},
                                kLocalLimit);
    if (commit.ok() && IsCommit(*commit)) return *commit;
    if (!commit.ok() && commit.error().code != Code::kNotFound) return Fail(commit.error());
  }
  if (sla.ref.empty())
    return Fail(Code::kNotFound,
                fmt::format("ml_repo_url: '{}' has no commit yet", sla.repository));
  return Fail(Code::kNotFound, fmt::format("ml_repo_url: '{}' has no branch, tag or commit '{}'",
                                           sla.repository, sla.ref));
}

}  // namespace

Result<Checkout> FetchRepository(const std::string& root, const Sla& sla, const std::string& commit,
                                 const std::string& token_file, std::stop_token stop) {
  const std::string key = tensor::Sha256Of(sla.repository).Hex().substr(0, 16);
  const std::string mirror = fmt::format("{}/{}.git", root, key);
  const auto turn = Turn(mirror);
  UMBEL_TRY(MakeDirectories(root));
  if (!token_file.empty()) UMBEL_TRY(WriteAskpass(root));
  const Git git(root, token_file, stop);
  Checkout made{commit, ""};
  if (commit.empty()) {
    UMBEL_TRY(FetchAll(git, mirror, sla));
    UMBEL_ASSIGN(made.commit, Resolve(git, mirror, sla));
  }
  made.folder = fmt::format("{}/{}-{}", root, key, made.commit);
  if (fs::exists(made.folder)) return made;
  if (!commit.empty() &&
      !git.Ask({"--git-dir=" + mirror, "cat-file", "-e", commit + "^{commit}"}, kLocalLimit).ok())
    UMBEL_TRY(FetchAll(git, mirror, sla));
  // Whole or not at all: made beside it, then renamed.
  const std::string scratch = fmt::format("{}.{}", made.folder, ::getpid());
  std::error_code ignored;
  fs::remove_all(scratch, ignored);
  UMBEL_TRY(MakeDirectories(scratch));
  const auto filled = git.Ask({"--git-dir=" + mirror, "--work-tree=" + scratch, "checkout",
                               "--quiet", "--force", made.commit, "--", "."},
                              kFetchLimit, {"GIT_INDEX_FILE=" + scratch + ".index"});
  fs::remove(scratch + ".index", ignored);
  if (!filled.ok()) {
    fs::remove_all(scratch, ignored);
    return Fail(filled.error().code,
                fmt::format("'{}' at {} cannot be checked out: {}", sla.repository, made.commit,
                            filled.error().message));
  }
  fs::permissions(scratch,
                  fs::perms::owner_all | fs::perms::group_read | fs::perms::group_exec |
                      fs::perms::others_read | fs::perms::others_exec,
                  ignored);
  if (::rename(scratch.c_str(), made.folder.c_str()) != 0 && !fs::exists(made.folder))
    return Fail(SystemError("rename", scratch));
  return made;
}

}  // namespace umbel::manager
