#include "dataserver/learner_sockets.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "dataserver/arrow_status.h"
#include "dataserver/read_service.h"
#include "dataset/names.h"
#include "tensor/quote.h"

namespace umbel::dataserver {
namespace {

using nlohmann::json;
using std::chrono::system_clock;
using tensor::Quote;

constexpr std::chrono::milliseconds kReleaseGrace{500};
constexpr const char* kSocketName = "/data.sock";
constexpr size_t kTagsShownMax = 20;

/// The pieces of one learner.
class ShareViews final : public Views {
 public:
  static Result<std::unique_ptr<ShareViews>> Make(const dataset::Assignment& assignment) {
    auto views = std::make_unique<ShareViews>();
    for (const dataset::Piece& piece : assignment.share) {
      const std::string path = assignment.folder + "/" + piece.name;
      UMBEL_ASSIGN(Summary summary, Inspect(path));
      const uint64_t all = std::max<uint64_t>(summary.rows, 1);
      const double part = static_cast<double>(piece.rows) / static_cast<double>(all);
      const auto bytes = static_cast<uint64_t>(static_cast<double>(summary.bytes) * part);
      views->views_.push_back({path, piece, bytes, std::move(summary.schema)});
    }
    return views;
  }

  Result<std::vector<View>> List(const std::vector<std::string>& tags) override {
    std::vector<View> found;
    for (const View& view : views_)
      if (std::find(tags.begin(), tags.end(), dataset::TagOf(view.piece.name)) != tags.end())
        found.push_back(view);
    return found;
  }
  Result<View> Find(std::string_view name) override {
    for (const View& view : views_)
      if (view.piece.name == name) return view;
    return Fail(Code::kNotFound, fmt::format("the learner's part has no file {}", Quote(name)));
  }

 private:
  std::vector<View> views_;
};

Status Give(const std::string& path, mode_t mode, std::optional<uint32_t> uid) {
  if (::chmod(path.c_str(), mode) != 0) return Fail(SystemError("chmod", path));
  if (uid && *uid != ::geteuid() && ::lchown(path.c_str(), *uid, static_cast<gid_t>(-1)) != 0)
    return Fail(Code::kPermissionDenied,
                fmt::format("cannot give '{}' to user {}: the data server must be root's for that",
                            path, *uid));
  return {};
}

}  // namespace

class LearnerSockets::Socket {
 public:
  static Result<std::unique_ptr<Socket>> Open(const std::string& folder,
                                              const dataset::Assignment& assignment) {
    UMBEL_ASSIGN(auto views, ShareViews::Make(assignment));
    std::unique_ptr<Socket> socket(new Socket(folder, std::move(views)));
    UMBEL_TRY(MakeDirectories(folder));
    ::unlink(socket->path().c_str());  // a killed server's
    UMBEL_ASSIGN(const auto location, From(arrow::flight::Location::ForGrpcUnix(socket->path())));
    UMBEL_TRY(From(socket->service_.Init(arrow::flight::FlightServerOptions(location))));
    socket->serving_ = true;
    UMBEL_TRY(socket->GiveTo(assignment.uid));
    return socket;
  }
  ~Socket() { Stop(system_clock::now()); }

  void Stop(system_clock::time_point deadline) {
    if (std::exchange(serving_, false)) {
      (void)service_.Shutdown(&deadline);
      (void)service_.Wait();
    }
    ::unlink(path().c_str());
  }
  /// The folder goes with the learner and not with the server: it may be shown to the learner, who
  /// would not see another of that name.
  void RemoveFolder() const { ::rmdir(folder_.c_str()); }
  Status GiveTo(std::optional<uint32_t> uid) const {
    UMBEL_TRY(Give(path(), 0600, uid));
    return Give(folder_, 0700, uid);
  }

 private:
  std::string path() const { return folder_ + kSocketName; }

  Socket(std::string folder, std::unique_ptr<Views> views)
      : folder_(std::move(folder)), views_(std::move(views)), service_(*views_) {}

  const std::string folder_;
  const std::unique_ptr<Views> views_;
  ReadService service_;
  bool serving_ = false;
};

LearnerSockets::LearnerSockets(Options options, Shelf& shelf)
    : options_(std::move(options)), shelf_(shelf) {}
LearnerSockets::~LearnerSockets() = default;

Result<std::unique_ptr<LearnerSockets>> LearnerSockets::Open(Options options, Shelf& shelf) {
  UMBEL_ASSIGN(auto assignments, dataset::Assignments::Open(options.book));
  UMBEL_TRY(MakeDirectories(options.sockets));
  // Users may pass, each to the folder that is theirs, and may not look around.
  if (::chmod(options.sockets.c_str(), 0711) != 0)
    return Fail(SystemError("chmod", options.sockets));
  std::unique_ptr<LearnerSockets> opened(new LearnerSockets(std::move(options), shelf));
  opened->assignments_ = std::move(assignments);
  for (const dataset::Assignment& assignment : opened->assignments_->All()) {
    // One learner without data is no reason to leave the others without.
    if (const Status served = opened->Serve(assignment); !served.ok())
      LogError("a learner has no socket", {{"project", assignment.project},
                                           {"learner", assignment.learner},
                                           {"why", served.error().message}});
  }
  return opened;
}

std::string LearnerSockets::FolderOf(const std::string& project, const std::string& learner) const {
  const std::string socket = dataset::LearnerSocket(options_.sockets, project, learner);
  return socket.substr(0, socket.rfind('/'));
}

Status LearnerSockets::Serve(const dataset::Assignment& assignment) {
  const std::string folder = FolderOf(assignment.project, assignment.learner);
  sockets_.erase(folder);
  UMBEL_ASSIGN(sockets_[folder], Socket::Open(folder, assignment));
  size_ = sockets_.size();
  return {};
}

Result<std::vector<std::string>> LearnerSockets::NamesOf(const std::vector<std::string>& tags) {
  UMBEL_ASSIGN(const std::vector<Entry> entries, shelf_.List(tags));
  std::vector<std::string> names;
  uint64_t rows = 0;
  for (const Entry& entry : entries) {
    names.push_back(entry.name);
    rows += entry.summary.rows;
  }
  if (rows > 0) return names;
  if (!names.empty())
    return Fail(
        Code::kFailedPrecondition,
        fmt::format("the files with one of the tags [{}] have no rows: {}{}", fmt::join(tags, ", "),
                    names.front(),
                    names.size() == 1 ? "" : fmt::format(" and {} more", names.size() - 1)));
  UMBEL_ASSIGN(const auto damaged, shelf_.Damaged(tags));
  if (!damaged.empty())
    return Fail(
        Code::kDataLoss,
        fmt::format("no file with one of the tags [{}] can be read: {}{}", fmt::join(tags, ", "),
                    damaged.front(),
                    damaged.size() == 1 ? "" : fmt::format("; and {} more", damaged.size() - 1)));
  UMBEL_ASSIGN(const auto there, shelf_.Tags());
  std::string text;
  size_t shown = 0;
  for (const auto& [tag, files] : there) {
    if (shown++ == kTagsShownMax) {
      text += ", …";
      break;
    }
    text += fmt::format("{}{} ({} file{})", text.empty() ? "" : ", ", tag, files,
                        files == 1 ? "" : "s");
  }
  return Fail(
      Code::kNotFound,
      fmt::format("no file on this node has one of the tags [{}]; there {}", fmt::join(tags, ", "),
                  text.empty() ? "is no file at all" : "are: " + text));
}

namespace {

json Describe(const dataset::Assignment& assignment, const std::string& socket) {
  json files = json::array();
  for (const dataset::Piece& piece : assignment.share)
    files.push_back({{"name", piece.name}, {"rows", piece.rows}});
  return {{"location", "grpc+unix://" + socket}, {"project", assignment.project},
          {"learner", assignment.learner},       {"tags", assignment.tags},
          {"index", assignment.index},           {"of", assignment.of},
          {"rows", assignment.rows()},           {"files", std::move(files)}};
}

}  // namespace

Result<std::string> LearnerSockets::Assign(const dataset::Claim& claim) {
  const std::lock_guard turn(mutex_);
  const std::string folder = FolderOf(claim.project, claim.learner);
  if (!sockets_.contains(folder) && sockets_.size() >= options_.learners_max)
    return Fail(Code::kResourceExhausted,
                fmt::format("there are {} learners' sockets already: raise --learners-max",
                            sockets_.size()));
  UMBEL_ASSIGN(
      const dataset::Assignment assignment,
      assignments_->Assign(claim, {shelf_.folder(), [&](const auto& tags) { return NamesOf(tags); },
                                   [](const std::string& path) -> Result<uint64_t> {
                                     UMBEL_ASSIGN(const Summary summary, Inspect(path));
                                     return summary.rows;
                                   }}));
  // Asked again, by a manager that did not hear the answer: what the learner is reading goes on.
  const auto serving = sockets_.find(folder);
  const Status served =
      serving == sockets_.end() ? Serve(assignment) : serving->second->GiveTo(assignment.uid);
  if (!served.ok()) {
    sockets_.erase(folder);
    size_ = sockets_.size();
    UMBEL_TRY(assignments_->Release(claim.project, claim.learner));
    return Fail(served.error());
  }
  LogInfo("learner has its part", {{"project", claim.project},
                                   {"learner", claim.learner},
                                   {"part", assignment.index},
                                   {"of", assignment.of},
                                   {"rows", assignment.rows()}});
  return Describe(assignment, folder + kSocketName).dump();
}

Result<std::string> LearnerSockets::Release(const dataset::Claim& claim) {
  const std::lock_guard turn(mutex_);
  const auto found = sockets_.find(FolderOf(claim.project, claim.learner));
  if (found != sockets_.end()) {
    found->second->Stop(system_clock::now() + kReleaseGrace);
    found->second->RemoveFolder();
    sockets_.erase(found);
    size_ = sockets_.size();
  }
  UMBEL_ASSIGN(const bool released, assignments_->Release(claim.project, claim.learner));
  if (released)
    LogInfo("learner was released", {{"project", claim.project}, {"learner", claim.learner}});
  return json({{"released", released}}).dump();
}

Result<std::string> LearnerSockets::List() {
  const std::lock_guard turn(mutex_);
  json list = json::array();
  for (const dataset::Assignment& assignment : assignments_->All())
    list.push_back(
        Describe(assignment, FolderOf(assignment.project, assignment.learner) + kSocketName));
  return list.dump();
}

void LearnerSockets::Stop(system_clock::time_point deadline) {
  const std::lock_guard turn(mutex_);
  for (const auto& [folder, socket] : sockets_) socket->Stop(deadline);
  sockets_.clear();
  size_ = 0;
}

}  // namespace umbel::dataserver
