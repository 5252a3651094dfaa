// A Unix socket for each learner that was assigned a part of the data; it serves that part and
// nothing else. Any thread may call. Calls take turns and wait for the disk: there is one for each
// learner that comes or goes.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "dataserver/shelf.h"
#include "dataset/assignments.h"
#include "dataset/criteria.h"

namespace umbel::dataserver {

class LearnerSockets {
 public:
  struct Options {
    std::string book;     // folder of the record and of the files that are dealt
    std::string sockets;  // a folder for each learner's socket is made in here; it must fit
    size_t learners_max = 64;
  };

  /// Every learner that had a socket has it again.
  static Result<std::unique_ptr<LearnerSockets>> Open(Options options, Shelf& shelf);
  ~LearnerSockets();

  /// returns JSON: location, index, of, rows, files.
  /// errors  those of Assignments::Assign; kNotFound says which tags there are; kPermissionDenied:
  /// a
  ///         uid, and the server is not root's; kFailedPrecondition: the path is too long.
  Result<std::string> Assign(const dataset::Claim& claim);
  /// returns JSON: released. What the learner is reading ends.
  Result<std::string> Release(const dataset::Claim& claim);
  /// returns JSON: a list of what Assign returned, with project and learner.
  Result<std::string> List();
  size_t size() const { return size_; }

  /// Ends reading at the deadline at the latest, and removes the sockets: Open makes them again.
  void Stop(std::chrono::system_clock::time_point deadline);

 private:
  class Socket;

  LearnerSockets(Options options, Shelf& shelf);
  std::string FolderOf(const std::string& project, const std::string& learner) const;
  Status Serve(const dataset::Assignment& assignment);
  Result<std::vector<std::string>> NamesOf(const std::vector<std::string>& tags);

  const Options options_;
  Shelf& shelf_;
  std::mutex mutex_;
  std::unique_ptr<dataset::Assignments> assignments_;
  std::map<std::string, std::unique_ptr<Socket>> sockets_;  // by folder
  std::atomic<size_t> size_ = 0;
};

}  // namespace umbel::dataserver
