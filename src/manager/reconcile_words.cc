// What people are told: stages, waits and failures, on the timeline and in the observer's log.
#include <algorithm>

#include "base/log.h"
#include "manager/reconciler.h"

namespace umbel::manager {
namespace {

constexpr size_t kLastBytes = 4096;
constexpr size_t kLastLines = 5;
constexpr std::chrono::seconds kPauseMin{1};
constexpr std::chrono::seconds kPauseMax{60};

bool Passes(const Error& error) {
  return error.code == Code::kUnavailable || error.code == Code::kDeadlineExceeded ||
         error.code == Code::kAborted;
}

}  // namespace

Entry Reconciler::Say(const Project& project, Level level, std::string text) const {
  return {0, Now(), project.stage, level, std::move(text)};
}

Reconciler::Moved Reconciler::Save(const Project& project, const Told& told) {
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    // Others write `wanted`, at any time.
    UMBEL_ASSIGN(const auto now, FindProject(db, project.id));
    if (!now) return Fail(Code::kAborted, "the project is gone");
    Project row = project;
    row.wanted = now->wanted == Wanted::kResume && row.live() ? Wanted::kRun : now->wanted;
    UMBEL_TRY(UpdateProject(db, row));
    for (const Entry& entry : told.entries) UMBEL_TRY(AddEntry(db, project.id, entry));
    return AddWords(db, project.id, told.words);
  }));
  return true;
}

Reconciler::Moved Reconciler::Advance(Project& project, Event event, Told told) {
  const auto next = Next(project.stage, event);
  UMBEL_CHECK(next.has_value());
  project.stage = *next;
  project.stage_since = Now();
  project.waiting.clear();
  if (!project.live()) project.ended_at = Now();
  // Stages in which nothing is left to be done are not worth a line.
  if (project.live() && event != Event::kModelLogged)
    told.entries.push_back(Say(project, Level::kInfo, fmt::format("stage {}", Name(*next))));
  if (*next == Stage::kDone) told.entries.push_back(Say(project, Level::kInfo, "done"));
  LogInfo("stage", {{"project", project.id}, {"stage", Name(*next)}});
  return Save(project, told);
}

Reconciler::Moved Reconciler::Wait(Project& project, const std::string& what) {
  if (project.waiting == what) return false;
  project.waiting = what;
  UMBEL_TRY(Save(project, {}));
  return false;
}

Reconciler::Moved Reconciler::FailProject(Project& project, const std::string& why) {
  CancelJobs(project);
  project.failure = why;
  Told told;
  told.entries.push_back(Say(project, Level::kError, why));
  told.words = fmt::format("{}\nTerminating this FLOps Project.\n", why);
  LogWarn("project failed", {{"project", project.id}, {"why", why}});
  return Advance(project, Event::kFail, std::move(told));
}

std::string Reconciler::LastLines(const std::string& instance) {
  std::string tail;
  for (uint64_t offset = 0;;) {
    const auto part = p_.ground.Logs(instance, offset, 1 << 20);
    if (!part.ok() || part->bytes.empty()) break;
    tail += part->bytes;
    if (tail.size() > kLastBytes) tail.erase(0, tail.size() - kLastBytes);
    offset = part->next;
  }
  while (!tail.empty() && (tail.back() == '\n' || tail.back() == ' ')) tail.pop_back();
  size_t begin = tail.size();
  for (size_t lines = 0; lines < kLastLines && begin != std::string::npos && begin > 0; ++lines)
    begin = tail.rfind('\n', begin - 1);
  return begin == std::string::npos || begin == 0 ? tail : tail.substr(begin + 1);
}

void Reconciler::LookAgainAt(WallTime at) {
  if (!look_at_ || at < *look_at_) look_at_ = at;
}

bool Reconciler::Overdue(const Project& project, std::chrono::seconds limit, WallTime since) {
  const WallTime until =
      std::max(SinceWhen(project.id, std::string(Name(project.stage))), since) + limit;
  if (Timer() >= until) return true;
  LookAgainAt(until);
  return false;
}

WallTime Reconciler::SinceWhen(const std::string& key, const std::string& what) {
  Begun& begun = begun_[key];
  if (begun.what != what) begun = {what, Timer()};
  return begun.at;
}

WallTime Reconciler::SinceWhen(const Instance& instance) {
  return SinceWhen(instance.name,
                   fmt::format("{}/{}", static_cast<int>(instance.state), instance.starts));
}

void Reconciler::CancelJobs(const Project& project) {
  const std::string prefix = "project/" + project.id + "/";
  p_.jobs.Cancel(prefix);
  std::erase_if(retries_, [&](const auto& retry) { return retry.first.starts_with(prefix); });
  heard_.erase(project.id);
  begun_.erase(project.id);
  samplers_.erase(project.id);
}

bool Reconciler::MayTry(const std::string& name) {
  const auto found = retries_.find(name);
  if (found == retries_.end() || Timer() >= found->second.at) return true;
  LookAgainAt(found->second.at);
  return false;
}

bool Reconciler::TryLater(const std::string& name, const Error& error, uint32_t retries) {
  if (!Passes(error)) return false;
  Retry& retry = retries_[name];
  if (retry.count >= retries) return false;
  retry.at = Timer() + std::min(kPauseMin * (int64_t{1} << std::min(retry.count, 10u)), kPauseMax);
  ++retry.count;
  LookAgainAt(retry.at);
  LogInfo("to be tried again",
          {{"what", name}, {"attempt", retry.count}, {"error", error.message}});
  return true;
}

}  // namespace umbel::manager
