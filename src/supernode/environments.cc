#include "supernode/environments.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cctype>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "flower/toml.h"
#include "http/tasks.h"
#include "supernode/environment.h"
#include "supernode/hosts/app_process.h"
#include "tensor/sha256.h"

namespace umbel::supernode {
namespace asio = boost::asio;
namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

namespace {

constexpr size_t kProjectMax = size_t{1} << 20;
constexpr size_t kLockMax = size_t{64} << 20;
constexpr seconds kVersionLimit{60};
constexpr milliseconds kGrace{3000};
// What a reply says of uv's output: its end.
constexpr size_t kLastLines = 20;
constexpr size_t kLastBytes = 1200;
// Beside the folder, since what is in that belongs to those who build.
constexpr std::string_view kMark = ".complete";
constexpr std::string_view kHome = "home";

Status Failed(std::string_view what, const std::string& path, const std::error_code& error) {
  return Fail(Code::kUnavailable, fmt::format("cannot {} '{}': {}", what, path, error.message()));
}

Status RemoveAll(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? Failed("remove", path, error) : Status();
}

/// Whether "Flwr[simulation] >= 1.41" and the like asks for Flower itself.
bool IsFlower(std::string_view requirement) {
  const size_t begin = std::min(requirement.find_first_not_of(" \t"), requirement.size());
  requirement.remove_prefix(begin);
  std::string name(requirement.substr(0, requirement.find_first_of(" \t[]()<>=!~;@,")));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name == "flwr";
}

/// What an app asks for, as far as it decides on its environment.
struct Wants {
  bool any = false;
  std::string text;
};

Result<Wants> WantsOf(const App& app) {
  Wants wants;
  auto project = ReadFile(app.directory + "/pyproject.toml", kProjectMax);
  if (!project.ok()) {
    if (project.error().code == Code::kNotFound) return wants;
    return Fail(std::move(project).error());
  }
  UMBEL_ASSIGN(wants.any, NeedsEnvironment(*project));
  if (!wants.any) return wants;
  auto lock = ReadFile(app.directory + "/uv.lock", kLockMax);
  if (!lock.ok()) {
    if (lock.error().code != Code::kNotFound) return Fail(std::move(lock).error());
    lock = std::string();
  }
  // Sources of uv's and dynamic fields may lead to any file of the app.
  UMBEL_ASSIGN(const flower::TomlValue document, flower::ParseToml(*project));
  const flower::TomlValue* tool = document.Find("tool");
  const flower::TomlValue* table = document.Find("project");
  const bool open = (tool != nullptr && tool->Find("uv") != nullptr) ||
                    (table != nullptr && table->Find("dynamic") != nullptr);
  wants.text = fmt::format("{}\n{}{}\n{}{}", open ? app.hash.Hex() : "", project->size(), *project,
                           lock->size(), *lock);
  return wants;
}

/// What a program has printed, and how it ended.
struct Ran {
  AppProcess::End end;
  bool ended = false;
  bool late = false;
  std::deque<std::string> last;
  uint64_t printed = 0;

  bool ok() const { return end.status == 0; }
  /// At most kLastBytes of the last lines; valid UTF-8.
  std::string Words() const {
    std::string words = fmt::format("{}", fmt::join(last, "\n"));
    if (words.size() > kLastBytes) {
      words.erase(0, words.size() - kLastBytes);
      // Not from within a character.
      while (!words.empty() && (static_cast<unsigned char>(words.front()) & 0xc0) == 0x80)
        words.erase(0, 1);
    }
    return words;
  }
};

class EnvironmentsImpl final : public Environments {
 public:
  EnvironmentsImpl(asio::io_context& context, asio::thread_pool& pool, EnvironmentOptions options,
                   process::CgroupParent* groups)
      : context_(context),
        pool_(pool),
        options_(std::move(options)),
        groups_(groups),
        changed_(context.get_executor()) {}

  Status OpenRoot() {
    std::error_code error;
    // uv works elsewhere, and scripts of an environment name its interpreter.
    options_.root = fs::absolute(options_.root, error).native();
    if (!error) options_.python = fs::absolute(options_.python, error).native();
    if (error) return Failed("find", options_.root, error);
    UMBEL_TRY(MakeDirectories(options_.root));
    if (options_.limits.uid != 0) {
      if (::chmod(options_.root.c_str(), 0711) != 0)
        return Fail(SystemError("open", options_.root));
      // uv's cache, and whatever a build keeps at home.
      const std::string home = fmt::format("{}/{}", options_.root, kHome);
      UMBEL_TRY(MakeDirectories(home));
      UMBEL_TRY(GiveAway(home));
      SetVariable(options_.variables, "HOME", home);
      if (!HasVariable(options_.variables, "UV_CACHE_DIR"))
        SetVariable(options_.variables, "UV_CACHE_DIR", home + "/cache");
    }
    return Clean();
  }

  Task<Result<std::string>> Of(const App& app, RunId run_id) override {
    auto look = [&app] { return WantsOf(app); };
    UMBEL_CO_ASSIGN(const Wants wants, co_await http::RunOn(pool_, look));
    if (!wants.any) co_return std::string();
    UMBEL_CO_ASSIGN(const std::string version, co_await Version());
    const std::string key = tensor::Sha256Of(fmt::format("environment 1\n{}\n{}\n{}",
                                                         options_.python, version, wants.text))
                                .Hex();
    for (;;) {
      if (stopping_) co_return Fail(Code::kCancelled, "stopping");
      Build& build = builds_[key];
      if (!build.going && build.failed && build.runs.contains(run_id))
        co_return Fail(*build.failed);
      build.runs.insert(run_id);
      if (!build.going) break;
      co_await changed_.Wait();
    }
    builds_[key].going = true;
    Status made = co_await MakeIfNeeded(app, key);
    if (!made.ok() && stopping_) made = Fail(Code::kCancelled, "stopping");
    Build& build = builds_[key];
    build.going = false;
    if (!made.ok()) build.failed = made.error();
    if (made.ok() || build.runs.empty()) builds_.erase(key);
    changed_.Ring();
    if (!made.ok()) co_return Fail(std::move(made).error());
    co_return FolderOf(key) + "/venv";
  }

  void Drop(RunId run_id) override {
    for (auto& [key, build] : builds_) build.runs.erase(run_id);
    std::erase_if(builds_, [](const auto& entry) {
      return !entry.second.going && entry.second.runs.empty();
    });
  }

  Task<void> Stop(milliseconds grace) override {
    stopping_ = true;
    for (const auto& process : processes_) process->EndSoon(milliseconds(0), grace);
    while (!processes_.empty()) co_await changed_.Wait();
  }

 private:
  struct Build {
    bool going = false;
    std::optional<Error> failed;
    std::set<RunId> runs;  // that have been told, or will be
  };

  std::string FolderOf(const std::string& key) const {
    return fmt::format("{}/{}", options_.root, key);
  }
  std::string MarkOf(const std::string& key) const { return FolderOf(key) + std::string(kMark); }

  Status Clean() const {
    std::error_code error;
    std::vector<std::pair<fs::file_time_type, std::string>> whole;
    std::vector<std::string> gone;
    for (fs::directory_iterator entry(options_.root, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string name = entry->path().filename().native();
      if (name == kHome) continue;
      std::error_code ignored;
      if (name.ends_with(kMark)) {
        const std::string folder = FolderOf(name.substr(0, name.size() - kMark.size()));
        if (!fs::exists(folder, ignored)) gone.push_back(entry->path().native());
      } else if (fs::exists(MarkOf(name), ignored)) {
        whole.emplace_back(fs::last_write_time(MarkOf(name), ignored), name);
      } else {
        gone.push_back(entry->path().native());
      }
    }
    if (error) return Failed("list", options_.root, error);
    std::sort(whole.rbegin(), whole.rend());
    for (size_t i = kKept; i < whole.size(); ++i) {
      UMBEL_TRY(RemoveAll(MarkOf(whole[i].second)));  // first: half of one is none
      gone.push_back(FolderOf(whole[i].second));
    }
    for (const std::string& path : gone) UMBEL_TRY(RemoveAll(path));
    return {};
  }

  /// To the user that user code runs as.
  Status GiveAway(const std::string& path) const {
    const uint32_t uid = options_.limits.uid;
    if (uid == 0) return {};
    if (::lchown(path.c_str(), uid, uid) != 0) return Fail(SystemError("give away", path));
    return {};
  }

  /// Of the interpreter, as it says itself: another one needs other environments.
  Task<Result<std::string>> Version() {
    if (version_) co_return *version_;
    std::vector<std::string> command{options_.python, "-VV"};
    UMBEL_CO_ASSIGN(const auto ran, co_await Run(std::move(command), "", kVersionLimit, false));
    if (!ran->ok())
      co_return Fail(Code::kFailedPrecondition,
                     fmt::format("The app's dependencies cannot be installed: '{}' {}: {}",
                                 options_.python, ran->end.how, ran->Words()));
    version_ = ran->Words();
    co_return *version_;
  }

  Task<Status> MakeIfNeeded(const App& app, const std::string& key) {
    auto use = [mark = MarkOf(key)] {
      return ::utimensat(AT_FDCWD, mark.c_str(), nullptr, AT_SYMLINK_NOFOLLOW) == 0;
    };
    if (co_await http::RunOn(pool_, std::move(use))) co_return Status();
    const std::string name = fmt::format("{}=={}", app.fab_id, app.version);
    LogInfo("an app's dependencies are being installed",
            {{"app", name}, {"environment", key.substr(0, 8)}});
    const auto begin = Steady::now();
    Status made = co_await Make(app, key);
    if (made.ok()) {
      LogInfo("an app's dependencies are installed",
              {{"app", name},
               {"environment", key.substr(0, 8)},
               {"seconds", std::chrono::ceil<seconds>(Steady::now() - begin).count()}});
    } else if (!stopping_) {
      LogWarn("an app's dependencies could not be installed",
              {{"app", name}, {"reason", made.error().message}});
      auto clear = [folder = FolderOf(key)] { return RemoveAll(folder); };
      if (const Status cleared = co_await http::RunOn(pool_, std::move(clear)); !cleared.ok())
        LogWarn("an unfinished environment stays", {{"error", cleared.error().message}});
    }
    co_return made;
  }

  Task<Status> Make(const App& app, const std::string& key) {
    const std::string folder = FolderOf(key);
    auto prepare = [this, &app, &folder] { return Prepare(app, folder); };
    UMBEL_CO_TRY(co_await http::RunOn(pool_, std::move(prepare)));
    // Not started in the app's folder, where an app could have a module of uv's name.
    std::vector<std::string> command{options_.python,
                                     "-m",
                                     "uv",
                                     "sync",
                                     "--directory",
                                     folder + "/app",
                                     "--python",
                                     options_.python,
                                     "--no-install-project",
                                     "--no-install-package",
                                     "flwr",
                                     "--inexact"};
    // To build is to run the app's code, and uv itself needs the network.
    if (!options_.limits.network) command.emplace_back("--no-build");
    UMBEL_CO_ASSIGN(const auto ran,
                    co_await Run(std::move(command), folder + "/venv", options_.build_limit, true));
    if (!ran->ok()) co_return Fail(Code::kFailedPrecondition, WhyNot(*ran));
    auto finish = [&folder, mark = MarkOf(key)]() -> Status {
      UMBEL_TRY(RemoveAll(folder + "/app"));
      std::error_code error;
      if (!fs::is_directory(folder + "/venv", error))
        return Fail(Code::kFailedPrecondition,
                    "The app's dependencies cannot be installed: uv has made no environment");
      return WriteFileAtomic(mark, "");
    };
    co_return co_await http::RunOn(pool_, std::move(finish));
  }

  /// A copy of the app for uv to write to, and an empty place for the environment.
  Status Prepare(const App& app, const std::string& folder) const {
    UMBEL_TRY(RemoveAll(folder));
    UMBEL_TRY(MakeDirectories(folder));
    UMBEL_TRY(MakeDirectories(folder + "/venv"));
    const std::string copy = folder + "/app";
    std::error_code error;
    fs::copy(app.directory, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks,
             error);
    if (error) return Failed("copy", app.directory, error);
    if (options_.limits.uid == 0) return {};
    UMBEL_TRY(GiveAway(folder));
    for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error))
      UMBEL_TRY(GiveAway(entry->path().native()));
    return error ? Failed("list", folder, error) : Status();
  }

  std::string WhyNot(const Ran& ran) const {
    if (!ran.last.empty() && ran.last.back().ends_with("No module named uv"))
      return fmt::format(
          "The app's dependencies cannot be installed: the Python '{}' has no uv. Install it "
          "there, or install there what the app needs.",
          options_.python);
    std::string how = ran.end.how;
    if (ran.late) how = fmt::format("was not done after {} s", options_.build_limit.count());
    return fmt::format(
        "The app's dependencies could not be installed: uv sync {}. Its last words: {}", how,
        ran.Words());
  }

  /// Runs a program to its end.
  /// environment  "": it makes none.
  /// errors  it cannot be started; kCancelled.
  Task<Result<std::shared_ptr<const Ran>>> Run(std::vector<std::string> arguments,
                                               std::string environment, seconds limit, bool log) {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    process::CommandSpec command;
    command.arguments = std::move(arguments);
    command.directory = options_.root;
    command.environment = options_.variables;
    // Both, or uv warns that they differ.
    for (const char* name : {"UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"})
      if (!environment.empty()) SetVariable(command.environment, name, environment);
    const auto ran = std::make_shared<Ran>();
    AppProcess::Observer observer;
    observer.line = [this, ran, log](std::string_view line) { Printed(*ran, line, log); };
    observer.end = [this, ran](const AppProcess::End& end) {
      ran->end = end;
      ran->ended = true;
      changed_.Ring();
    };
    const auto begin = Steady::now();
    UMBEL_CO_ASSIGN(const auto process,
                    AppProcess::Start(context_, pool_, std::move(command), options_.limits, groups_,
                                      fmt::format("e{}", ++started_), std::move(observer)));
    processes_.insert(process);
    process->EndSoon(limit, kGrace);
    while (!ran->ended) co_await changed_.Wait();
    processes_.erase(process);
    changed_.Ring();
    ran->late = Steady::now() - begin >= limit;
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    co_return std::shared_ptr<const Ran>(ran);
  }

  void Printed(Ran& ran, std::string_view line, bool log) const {
    if (line.find_first_not_of(" \t") == line.npos) return;
    std::string text = ValidUtf8(line);
    const uint64_t limit = options_.limits.output_bytes;
    ran.printed += text.size();
    if (log && (limit == 0 || ran.printed <= limit)) LogInfo("uv", {{"text", text}});
    ran.last.push_back(std::move(text));
    if (ran.last.size() > kLastLines) ran.last.pop_front();
  }

  asio::io_context& context_;
  asio::thread_pool& pool_;
  EnvironmentOptions options_;
  process::CgroupParent* const groups_;
  std::optional<std::string> version_;
  std::map<std::string, Build> builds_;  // going, or failed; by key
  std::set<std::shared_ptr<AppProcess>> processes_;
  uint64_t started_ = 0;
  http::Bell changed_;
  bool stopping_ = false;
};

}  // namespace

Result<std::unique_ptr<Environments>> Environments::Open(asio::io_context& context,
                                                         asio::thread_pool& pool,
                                                         EnvironmentOptions options,
                                                         process::CgroupParent* groups) {
  auto made = std::make_unique<EnvironmentsImpl>(context, pool, std::move(options), groups);
  UMBEL_TRY(made->OpenRoot());
  return std::unique_ptr<Environments>(std::move(made));
}

Result<bool> NeedsEnvironment(std::string_view pyproject) {
  UMBEL_ASSIGN(const flower::TomlValue document, flower::ParseToml(pyproject));
  if (const auto* groups = document.Find("dependency-groups"))
    if (!groups->entries.empty()) return true;
  if (const auto* tool = document.Find("tool"))
    if (tool->Find("uv") != nullptr) return true;
  const flower::TomlValue* project = document.Find("project");
  if (project == nullptr) return false;
  if (const auto* dynamic = project->Find("dynamic"))
    for (const auto& field : dynamic->items)
      if (field.text == "dependencies") return true;
  const flower::TomlValue* dependencies = project->Find("dependencies");
  return dependencies != nullptr &&
         std::any_of(dependencies->items.begin(), dependencies->items.end(),
                     [](const flower::TomlValue& item) { return !IsFlower(item.text); });
}

}  // namespace umbel::supernode
