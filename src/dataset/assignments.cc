#include "dataset/assignments.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "dataset/names.h"
#include "tensor/quote.h"
#include "tensor/sha256.h"

namespace umbel::dataset {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using tensor::Quote;

constexpr int kVersion = 1;

void RemoveFolder(const std::string& path) {
  std::error_code ignored;  // what stays is swept when the server starts again
  fs::remove_all(path, ignored);
}

std::string Listed(const std::vector<std::string>& words) {
  return fmt::format("[{}]", fmt::join(words, ", "));
}

Status CheckSame(const Claim& claim, const std::vector<std::string>& tags, uint32_t of) {
  if (claim.tags == tags && claim.of == of) return {};
  return Fail(Code::kFailedPrecondition,
              fmt::format("project {} was shared out among {} learners by tags {}, not among {} by "
                          "{}: release its learners first",
                          Quote(claim.project), of, Listed(tags), claim.of, Listed(claim.tags)));
}

}  // namespace

uint64_t Assignment::rows() const {
  uint64_t sum = 0;
  for (const Piece& piece : share) sum += piece.rows;
  return sum;
}

std::string Assignments::FolderOf(std::string_view project) const {
  return directory_ + "/projects/" + tensor::Sha256Of(project).Hex().substr(0, 24);
}

Result<Assignments::Projects> Assignments::Read(std::string_view record) {
  try {
    const json document = json::parse(record);
    if (document.at("version") != kVersion)
      return Fail(Code::kDataLoss, "is of another version of this program");
    Projects projects;
    for (const json& entry : document.at("projects")) {
      Project project;
      project.tags = entry.at("tags").get<std::vector<std::string>>();
      project.of = entry.at("of").get<uint32_t>();
      for (const json& file : entry.at("files")) {
        project.files.push_back(
            {file.at("name").get<std::string>(), file.at("rows").get<uint64_t>()});
        UMBEL_TRY(CheckFileName(project.files.back().name));
      }
      for (const json& learner : entry.at("learners")) {
        Holder holder{learner.at("index").get<uint32_t>(), std::nullopt};
        if (learner.contains("uid")) holder.uid = learner["uid"].get<uint32_t>();
        if (holder.index >= project.of) return Fail(Code::kDataLoss, "has a part that is not one");
        project.learners.emplace(learner.at("learner").get<std::string>(), holder);
      }
      if (project.of == 0 || project.of > kLearnersMax)
        return Fail(Code::kDataLoss, "has a wrong number of learners");
      UMBEL_ASSIGN(project.shares, Deal(project.files, project.of));
      projects.emplace(entry.at("project").get<std::string>(), std::move(project));
    }
    return projects;
  } catch (const json::exception& error) {
    return Fail(Code::kDataLoss, error.what());
  }
}

std::string Assignments::Write(const Projects& projects) {
  json list = json::array();
  for (const auto& [name, project] : projects) {
    json files = json::array();
    for (const DealtFile& file : project.files)
      files.push_back({{"name", file.name}, {"rows", file.rows}});
    json learners = json::array();
    for (const auto& [learner, holder] : project.learners) {
      json entry = {{"learner", learner}, {"index", holder.index}};
      if (holder.uid) entry["uid"] = *holder.uid;
      learners.push_back(std::move(entry));
    }
    list.push_back({{"project", name},
                    {"tags", project.tags},
                    {"of", project.of},
                    {"files", std::move(files)},
                    {"learners", std::move(learners)}});
  }
  return json({{"version", kVersion}, {"projects", std::move(list)}}).dump(1) + "\n";
}

Result<std::unique_ptr<Assignments>> Assignments::Open(std::string directory) {
  UMBEL_TRY(MakeDirectories(directory + "/projects"));
  std::unique_ptr<Assignments> opened(new Assignments(std::move(directory)));
  const auto record = ReadFile(opened->RecordPath());
  if (record.ok()) {
    auto projects = Read(*record);
    if (!projects.ok())
      return Fail(
          Code::kDataLoss,
          fmt::format("'{}' {}: which learner has which rows is not known; stop the learners "
                      "of this node and remove the file",
                      opened->RecordPath(), projects.error().message));
    opened->projects_ = std::move(*projects);
  } else if (record.error().code != Code::kNotFound) {
    return Fail(record.error());
  }
  opened->Sweep();
  return opened;
}

void Assignments::Sweep() const {
  std::set<std::string> kept;
  for (const auto& [name, project] : projects_) kept.insert(FolderOf(name));
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory_ + "/projects", ignored))
    if (!kept.contains(entry.path().native())) RemoveFolder(entry.path());
}

Status Assignments::Save(Projects next) {
  UMBEL_TRY(WriteFileDurable(RecordPath(), Write(next)));
  projects_ = std::move(next);
  return {};
}

Result<Assignments::Project> Assignments::Share(const Claim& claim, const Files& files) const {
  UMBEL_ASSIGN(const std::vector<std::string> names, files.names(claim.tags));
  const std::string folder = FolderOf(claim.project);
  RemoveFolder(folder);
  UMBEL_TRY(MakeDirectories(folder));
  Project project;
  project.tags = claim.tags;
  project.of = claim.of;
  // Rows are counted behind the link: what a put replaces meanwhile is not what is dealt.
  for (const std::string& name : names) {
    const std::string from = files.folder + "/" + name, to = folder + "/" + name;
    if (::link(from.c_str(), to.c_str()) != 0) {
      if (errno == ENOENT) continue;  // dropped a moment ago
      return Fail(SystemError("link", from));
    }
    UMBEL_ASSIGN(const uint64_t rows, files.rows(to));
    project.files.push_back({name, rows});
  }
  UMBEL_TRY(SyncPath(folder));
  auto shares = Deal(project.files, claim.of);
  if (!shares.ok())
    return Fail(shares.error().code,
                fmt::format("tags {}: {}", Listed(claim.tags), shares.error().message));
  project.shares = std::move(*shares);
  return project;
}

Assignment Assignments::Describe(const std::string& name, const Project& project,
                                 const std::string& learner) const {
  const Holder& holder = project.learners.at(learner);
  return {name,
          learner,
          holder.index,
          project.of,
          project.tags,
          holder.uid,
          project.shares[holder.index],
          FolderOf(name)};
}

Result<Assignment> Assignments::Assign(const Claim& claim, const Files& files) {
  Projects next = projects_;
  auto found = next.find(claim.project);
  if (found == next.end()) {
    auto project = Share(claim, files);
    if (!project.ok()) {
      RemoveFolder(FolderOf(claim.project));
      return Fail(project.error());
    }
    found = next.emplace(claim.project, std::move(*project)).first;
  }
  Project& project = found->second;
  UMBEL_TRY(CheckSame(claim, project.tags, project.of));

  const auto owner_of = [&](uint32_t index) {
    return std::find_if(project.learners.begin(), project.learners.end(),
                        [&](const auto& entry) { return entry.second.index == index; });
  };
  Holder holder{claim.index.value_or(0), claim.uid};
  if (const auto mine = project.learners.find(claim.learner); mine != project.learners.end()) {
    holder.index = mine->second.index;
    if (claim.index.value_or(holder.index) != holder.index)
      return Fail(
          Code::kFailedPrecondition,
          fmt::format("learner {} has part {} of project {}, not part {}: release it first",
                      Quote(claim.learner), holder.index, Quote(claim.project), *claim.index));
  } else if (claim.index) {
    if (const auto other = owner_of(*claim.index); other != project.learners.end())
      return Fail(Code::kAlreadyExists,
                  fmt::format("part {} of project {} is with learner {}", *claim.index,
                              Quote(claim.project), Quote(other->first)));
  } else {
    while (holder.index < project.of && owner_of(holder.index) != project.learners.end())
      ++holder.index;
    if (holder.index == project.of)
      return Fail(Code::kResourceExhausted,
                  fmt::format("all {} parts of project {} are taken: release a learner first",
                              project.of, Quote(claim.project)));
  }
  project.learners[claim.learner] = holder;
  UMBEL_TRY(Save(std::move(next)));
  return Describe(claim.project, projects_.at(claim.project), claim.learner);
}

Result<bool> Assignments::Release(const std::string& name, const std::string& learner) {
  Projects next = projects_;
  const auto found = next.find(name);
  if (found == next.end() || found->second.learners.erase(learner) == 0) return false;
  const bool last = found->second.learners.empty();
  if (last) next.erase(found);
  UMBEL_TRY(Save(std::move(next)));
  if (last) RemoveFolder(FolderOf(name));
  return true;
}

std::vector<Assignment> Assignments::All() const {
  std::vector<Assignment> all;
  for (const auto& [name, project] : projects_)
    for (const auto& [learner, holder] : project.learners)
      all.push_back(Describe(name, project, learner));
  return all;
}

}  // namespace umbel::dataset
