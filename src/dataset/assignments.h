// Which learner has which part of this node's data: durable, and the same after every restart.
// Belongs to one thread at a time; calls wait for the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dataset/criteria.h"
#include "dataset/deal.h"

namespace umbel::dataset {

struct Assignment {
  std::string project;
  std::string learner;
  uint32_t index = 0;
  uint32_t of = 1;
  std::vector<std::string> tags;
  std::optional<uint32_t> uid;
  Share share;
  std::string folder;  // the share's files are here: no put and no drop changes them

  bool operator==(const Assignment&) const = default;
  uint64_t rows() const;
};

/// The first claim of a project shares out the files that are there then, and keeps them by hard
/// links. What is put or dropped later is for projects to come: learners of one project always have
/// parts of one deal, so no row is with two of them. With its last learner a project is forgotten.
class Assignments {
 public:
  /// What a deal needs to know of the files.
  struct Files {
    std::string folder;
    /// Of those with one of the tags. errors  kNotFound: there are none.
    std::function<Result<std::vector<std::string>>(const std::vector<std::string>& tags)> names;
    std::function<Result<uint64_t>(const std::string& path)> rows;
  };

  /// directory  of ours alone, on the file system of the files. Removes what a killed owner left.
  /// errors  kDataLoss: its record is no longer what was written.
  static Result<std::unique_ptr<Assignments>> Open(std::string directory);

  /// Durable when it returns. Safe to call again: a learner keeps the part it has.
  /// errors  kFailedPrecondition: the project was shared out by other tags or among another number
  ///         of learners, or has fewer rows than learners; kAlreadyExists: the part is another
  ///         learner's; kResourceExhausted: all parts are; kNotFound: no files.
  Result<Assignment> Assign(const Claim& claim, const Files& files);
  /// false: it had none.
  Result<bool> Release(const std::string& project, const std::string& learner);

  std::vector<Assignment> All() const;

 private:
  struct Holder {
    uint32_t index = 0;
    std::optional<uint32_t> uid;
  };
  struct Project {
    std::vector<std::string> tags;
    uint32_t of = 1;
    std::vector<DealtFile> files;
    std::map<std::string, Holder> learners;  // by name
    std::vector<Share> shares;               // follows from files and of
  };
  using Projects = std::map<std::string, Project>;

  explicit Assignments(std::string directory) : directory_(std::move(directory)) {}
  std::string RecordPath() const { return directory_ + "/assignments.json"; }
  std::string FolderOf(std::string_view project) const;
  static Result<Projects> Read(std::string_view record);
  static std::string Write(const Projects& projects);
  Status Save(Projects next);
  void Sweep() const;
  Result<Project> Share(const Claim& claim, const Files& files) const;
  Assignment Describe(const std::string& name, const Project& project,
                      const std::string& learner) const;

  std::string directory_;
  Projects projects_;
};

}  // namespace umbel::dataset
