// Environments that no project uses any more.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "manager/reconciler.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kSweepEvery{24};
constexpr const char* kGone = ".gone-";
constexpr const char* kJob = "environments";

/// Written last by the builder; its age is that of the environment's last use.
fs::path ResultOf(const fs::path& environment) { return environment / "umbel" / "result.json"; }

/// Removes what was used last before `before`, but what a python of `used` lies in. How many.
size_t Sweep(const fs::path& folder, const std::vector<std::string>& used, WallTime now,
             WallTime before, const std::stop_token& stop) {
  const auto file_time = [](WallTime time) {
    return std::chrono::time_point_cast<fs::file_time_type::duration>(
        std::chrono::file_clock::from_sys(time));
  };
  size_t removed = 0;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end && !stop.stop_requested();
       it.increment(error)) {
    std::error_code ignored;
    const std::string name = it->path().filename().native();
    if (name.starts_with(kGone)) {  // an earlier manager did not come to the end of it
      fs::remove_all(it->path(), ignored);
      continue;
    }
    const auto last = fs::last_write_time(ResultOf(it->path()), ignored);
    if (ignored) continue;  // no environment, or one that is being made
    const bool in_use = std::any_of(used.begin(), used.end(), [&](const std::string& python) {
      return python.find("/" + name + "/") != std::string::npos;
    });
    if (in_use) {
      fs::last_write_time(ResultOf(it->path()), file_time(now), ignored);
    } else if (last < file_time(before)) {
      // Whole or not there at all.
      const fs::path gone = folder / (kGone + name);
      fs::rename(it->path(), gone, ignored);
      if (ignored) continue;
      fs::remove_all(gone, ignored);
      LogInfo("removed an environment that nobody has used for long", {{"key", name}});
      ++removed;
    }
  }
  return removed;
}

}  // namespace

bool Reconciler::SweepsEnvironments() { return p_.jobs.Has(kJob); }

Reconciler::Moved Reconciler::DropEnvironments() {
  const auto days = std::chrono::days(p_.options.environment_days);
  if (days.count() == 0 || (!SweepsEnvironments() && Timer() < next_sweep_)) return false;
  std::vector<std::string> used;
  for (const Project& project : view_.projects) {
    // A builder may be about to take one that is there.
    if (!SweepsEnvironments() && project.live() && project.stage == Stage::kBuild) return false;
    const auto facts = nlohmann::json::parse(project.environment, nullptr, false);
    if (facts.is_object()) used.push_back(facts.value("python", ""));
  }
  const std::function<Result<size_t>(std::stop_token)> work =
      [folder = p_.options.state + "/environments", used, now = Now(),
       days](std::stop_token stop) -> Result<size_t> {
    return Sweep(folder, used, now, now - days, stop);
  };
  if (p_.jobs.Run<size_t>(kJob, work)) next_sweep_ = Timer() + kSweepEvery;
  LookAgainAt(next_sweep_ > Timer() ? next_sweep_ : Timer() + kSweepEvery);
  return false;
}

}  // namespace umbel::manager
