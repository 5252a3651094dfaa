#include "dataserver/shelf.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "dataserver/incoming.h"
#include "dataset/names.h"
#include "tensor/quote.h"

namespace umbel::dataserver {
namespace {

namespace fs = std::filesystem;
using tensor::Quote;

Error NoFile(std::string_view name) {
  return {Code::kNotFound, fmt::format("there is no file {}", Quote(name, dataset::kNameBytesMax)),
          0};
}

}  // namespace

Result<std::unique_ptr<Shelf>> Shelf::Open(std::string folder, std::string work, Quotas quotas) {
  UMBEL_TRY(MakeDirectories(folder));
  UMBEL_TRY(MakeDirectories(work));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(work, error)) fs::remove(entry.path(), error);
  if (error)
    return Fail(Code::kUnavailable, fmt::format("cannot sweep '{}': {}", work, error.message()));
  std::unique_ptr<Shelf> shelf(new Shelf(std::move(folder), std::move(work), quotas));
  UMBEL_TRY(shelf->Tags());  // reads each footer once, and says which are damaged
  return shelf;
}

Result<std::vector<std::string>> Shelf::Names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename();
    if (dataset::CheckFileName(name).ok()) names.push_back(std::move(name));
  }
  if (error)
    return Fail(Code::kUnavailable, fmt::format("cannot read '{}': {}", folder_, error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<Result<Summary>> Shelf::Look(const std::string& name) {
  struct stat info {};
  // A link could lead anywhere.
  if (::lstat(PathOf(name).c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  const int64_t changed = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  const auto bytes = static_cast<uint64_t>(info.st_size);
  auto found = known_.With([&](const auto& known) -> std::optional<Result<Summary>> {
    const auto it = known.find(name);
    if (it == known.end() || it->second.inode != info.st_ino || it->second.bytes != bytes ||
        it->second.changed_ns != changed)
      return std::nullopt;
    return it->second.summary;
  });
  if (found) return found;
  Result<Summary> summary = Inspect(PathOf(name));
  if (!summary.ok() && summary.error().code == Code::kNotFound) return std::nullopt;
  if (!summary.ok()) LogWarn("file is left out", {{"why", summary.error().message}});
  known_.With([&](auto& known) {
    known.insert_or_assign(name, Known{info.st_ino, bytes, changed, summary});
  });
  return summary;
}

Result<std::vector<Entry>> Shelf::List(const std::vector<std::string>& tags) {
  UMBEL_ASSIGN(const std::vector<std::string> names, Names());
  std::vector<Entry> entries;
  for (const std::string& name : names) {
    if (std::find(tags.begin(), tags.end(), dataset::TagOf(name)) == tags.end()) continue;
    const auto summary = Look(name);
    if (summary && summary->ok()) entries.push_back({name, PathOf(name), **summary});
  }
  return entries;
}

Result<std::vector<std::string>> Shelf::Damaged(const std::vector<std::string>& tags) {
  UMBEL_ASSIGN(const std::vector<std::string> names, Names());
  std::vector<std::string> reasons;
  for (const std::string& name : names) {
    if (std::find(tags.begin(), tags.end(), dataset::TagOf(name)) == tags.end()) continue;
    const auto summary = Look(name);
    if (summary && !summary->ok()) reasons.push_back(summary->error().message);
  }
  return reasons;
}

Result<Entry> Shelf::Find(std::string_view asked) {
  UMBEL_TRY(dataset::CheckFileName(asked));
  const std::string name(asked);
  const auto summary = Look(name);
  if (!summary) return Fail(NoFile(name));
  if (!summary->ok()) return Fail(summary->error());
  return Entry{name, PathOf(name), **summary};
}

Result<std::map<std::string, uint64_t>> Shelf::Tags() {
  UMBEL_ASSIGN(const std::vector<std::string> names, Names());
  std::map<std::string, uint64_t> tags;
  for (const std::string& name : names)
    if (const auto summary = Look(name); summary && summary->ok())
      ++tags[std::string(dataset::TagOf(name))];
  // What went away by hand is forgotten.
  const std::set<std::string> there(names.begin(), names.end());
  known_.With([&](auto& known) {
    std::erase_if(known, [&](const auto& entry) { return !there.contains(entry.first); });
  });
  return tags;
}

Result<Shelf::Usage> Shelf::Use() const {
  UMBEL_ASSIGN(const std::vector<std::string> names, Names());
  Usage usage;
  for (const std::string& name : names) {
    struct stat info {};
    if (::lstat(PathOf(name).c_str(), &info) != 0) continue;
    ++usage.files;
    usage.bytes += static_cast<uint64_t>(info.st_size);
  }
  return usage;
}

Status Shelf::Charge(uint64_t bytes) {
  const bool fits = pending_.With([&](Pending& pending) {
    if (pending.stored + pending.bytes + bytes > quotas_.bytes_max) return false;
    pending.bytes += bytes;
    return true;
  });
  if (fits) return {};
  return Fail(Code::kResourceExhausted,
              fmt::format("the data server is full: its quota is {} bytes; drop files, or raise "
                          "--quota-bytes",
                          quotas_.bytes_max));
}

void Shelf::Refund(uint64_t bytes, bool ended) {
  const auto usage = Use();
  pending_.With([&](Pending& pending) {
    pending.bytes -= bytes;
    if (ended) --pending.puts;
    if (usage.ok()) pending.stored = usage->bytes;
  });
}

Result<std::unique_ptr<Incoming>> Shelf::Begin(const std::string& name,
                                               const std::shared_ptr<arrow::Schema>& schema) {
  UMBEL_TRY(dataset::CheckFileName(name));
  UMBEL_ASSIGN(const Usage usage, Use());
  struct stat info {};
  const bool replaces = ::lstat(PathOf(name).c_str(), &info) == 0;
  if (replaces && !S_ISREG(info.st_mode))
    return Fail(Code::kInvalidArgument, fmt::format("{} is not a file", Quote(name)));
  uint64_t number = 0;
  UMBEL_TRY(pending_.With([&](Pending& pending) -> Status {
    if (pending.puts >= quotas_.puts_max)
      return Fail(Code::kUnavailable,
                  fmt::format("{} files are being put already: try again later", pending.puts));
    if (!replaces && usage.files + pending.puts >= quotas_.files_max)
      return Fail(
          Code::kResourceExhausted,
          fmt::format("the data server is full: its quota is {} files; drop files, or raise "
                      "--quota-files",
                      quotas_.files_max));
    ++pending.puts;
    pending.stored = usage.bytes;
    number = pending.number++;
    return {};
  }));
  // From here on the put is counted, and Incoming counts it off.
  std::unique_ptr<Incoming> incoming(
      new Incoming(*this, name, fmt::format("{}/{}", work_, number)));
  UMBEL_TRY(incoming->Open(schema));
  return incoming;
}

Status Shelf::Drop(std::string_view name) {
  UMBEL_TRY(dataset::CheckFileName(name));
  const std::string path = PathOf(name);
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return Fail(NoFile(name));
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return Fail(NoFile(name));
    return Fail(SystemError("remove", path));
  }
  known_.With([&](auto& known) { known.erase(std::string(name)); });
  return SyncPath(folder_);
}

}  // namespace umbel::dataserver
