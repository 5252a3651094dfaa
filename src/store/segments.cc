#include "store/segments.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <filesystem>
#include <future>
#include <map>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/guarded.h"
#include "store/extents.h"
#include "store/segment_file.h"

namespace umbel::store {
namespace {

namespace fs = std::filesystem;

struct Run {
  ExtentMap extents;
  std::map<uint32_t, std::shared_ptr<DataFile>> files;
  /// Extents that somebody reads; what is freed meanwhile is freed by the last reader.
  struct Readers {
    uint64_t count = 0;
    bool freed = false;
  };
  std::map<std::pair<uint32_t, uint64_t>, Readers> readers;
  /// Set while one caller creates a segment for all.
  std::shared_future<void> growing;
  bool dropped = false;
};

struct State {
  std::unordered_map<RunId, std::shared_ptr<Run>> runs;
  uint32_t next_segment = 1;  // numbers are never used twice, so that no name is
};

using SharedState = std::shared_ptr<Guarded<State>>;

ExtentMap::Place PlaceOf(const Extent& extent) { return {extent.segment, extent.offset}; }

std::string Folder(RunId run_id) { return fmt::format("{:016x}", run_id.value); }

/// A file on loan for one extent.
class Reader final : public SegmentFile {
 public:
  Reader(SharedState state, std::shared_ptr<Run> run, std::shared_ptr<DataFile> file, Extent extent)
      : state_(std::move(state)), run_(std::move(run)), file_(std::move(file)), extent_(extent) {}
  ~Reader() override {
    state_->With([this](State&) {
      const auto found = run_->readers.find({extent_.segment, extent_.offset});
      if (--found->second.count > 0) return;
      if (found->second.freed) run_->extents.Free(PlaceOf(extent_), extent_.size);
      run_->readers.erase(found);
    });
  }
  int fd() const override { return file_->fd(); }
  DataFile& file() const { return *file_; }

 private:
  SharedState state_;
  std::shared_ptr<Run> run_;
  std::shared_ptr<DataFile> file_;
  Extent extent_;
};

class SegmentFiles final : public Segments {
 public:
  SegmentFiles(std::string directory, bool sync, uint64_t segment_bytes)
      : directory_(std::move(directory)),
        sync_(sync && !directory_.empty()),  // nothing survives in files without a name
        segment_bytes_(segment_bytes) {}

  Status Recover(const std::vector<ObjectRow>& known);

  Result<Extent> Allocate(RunId run_id, uint64_t size) override;
  Status Write(const Extent& extent, uint64_t at, std::span<const char> bytes) override;
  Status Sync(const Extent& extent) override;
  Result<std::string> Read(const Extent& extent) override;
  Result<std::shared_ptr<SegmentFile>> File(const Extent& extent) override;
  void Free(const Extent& extent) override;
  void DropRun(RunId run_id) override;
  uint64_t bytes_on_disk() const override { return total_->load(); }

 private:
  /// What the state asks of a caller that wants space.
  struct Plan {
    std::shared_ptr<Run> run;
    std::optional<ExtentMap::Place> place;  // here it is
    std::shared_future<void> wait;          // or wait and ask again
    uint32_t segment = 0;                   // or create this one
  };

  Plan PlanFor(RunId run_id, uint64_t size, std::promise<void>& grown);
  Result<Extent> Grow(RunId run_id, uint64_t size, const Plan& plan);
  Result<std::shared_ptr<Reader>> Borrow(const Extent& extent);
  Result<std::shared_ptr<DataFile>> FileOf(const Extent& extent);

  const std::string directory_;
  const bool sync_;
  const uint64_t segment_bytes_;
  const std::shared_ptr<std::atomic<uint64_t>> total_ = std::make_shared<std::atomic<uint64_t>>(0);
  const SharedState state_ = std::make_shared<Guarded<State>>();
};

Error NoSegment(const Extent& extent) {
  return Error{Code::kNotFound,
               fmt::format("run {} has no segment {}", extent.run_id, extent.segment)};
}

SegmentFiles::Plan SegmentFiles::PlanFor(RunId run_id, uint64_t size, std::promise<void>& grown) {
  return state_->With([&](State& state) {
    std::shared_ptr<Run>& run = state.runs[run_id];
    if (!run) run = std::make_shared<Run>();
    Plan plan;
    plan.run = run;
    plan.place = run->extents.Take(size);
    if (plan.place.has_value()) return plan;
    const bool own = size > segment_bytes_;
    if (!own && run->growing.valid()) {
      plan.wait = run->growing;
      return plan;
    }
    if (!own) run->growing = grown.get_future().share();
    plan.segment = state.next_segment++;
    return plan;
  });
}

Result<Extent> SegmentFiles::Allocate(RunId run_id, uint64_t size) {
  if (size > ExtentMap::kSizeMax)
    return Fail(Code::kResourceExhausted, fmt::format("no room for an object of {} bytes", size));
  for (;;) {
    std::promise<void> grown;
    const Plan plan = PlanFor(run_id, size, grown);
    if (plan.place.has_value())
      return Extent{run_id, plan.place->segment, plan.place->offset, size};
    if (plan.wait.valid()) {
      plan.wait.wait();
      continue;
    }
    Result<Extent> extent = Grow(run_id, size, plan);
    grown.set_value();
    return extent;
  }
}

Result<Extent> SegmentFiles::Grow(RunId run_id, uint64_t size, const Plan& plan) {
  const uint64_t wanted = std::max<uint64_t>(size, 1);
  const bool own = size > segment_bytes_;
  const auto made =
      DataFile::Create(directory_, Folder(run_id), fmt::format("{}.seg", plan.segment),
                       std::max(segment_bytes_, wanted), wanted, total_);
  bool dropped = false;
  std::optional<ExtentMap::Place> place;
  state_->With([&](State&) {
    if (!own) plan.run->growing = {};
    dropped = plan.run->dropped;
    if (dropped || !made.ok()) return;
    plan.run->files[plan.segment] = *made;
    plan.run->extents.AddSegment(plan.segment, (*made)->size());
    place = plan.run->extents.Take(size);
  });
  if (!made.ok()) return Fail(made.error());
  if (dropped) {
    (*made)->Unlink();
    ::rmdir((directory_ + "/" + Folder(run_id)).c_str());
    return Fail(Code::kNotFound, fmt::format("run {} was dropped meanwhile", run_id));
  }
  UMBEL_CHECK(place.has_value());
  return Extent{run_id, place->segment, place->offset, size};
}

Result<std::shared_ptr<DataFile>> SegmentFiles::FileOf(const Extent& extent) {
  auto file = state_->With([&](State& state) -> std::shared_ptr<DataFile> {
    const auto run = state.runs.find(extent.run_id);
    if (run == state.runs.end()) return nullptr;
    const auto found = run->second->files.find(extent.segment);
    return found == run->second->files.end() ? nullptr : found->second;
  });
  if (!file) return Fail(NoSegment(extent));
  return file;
}

Result<std::shared_ptr<Reader>> SegmentFiles::Borrow(const Extent& extent) {
  auto reader = state_->With([&](State& state) -> std::shared_ptr<Reader> {
    const auto run = state.runs.find(extent.run_id);
    if (run == state.runs.end()) return nullptr;
    const auto file = run->second->files.find(extent.segment);
    if (file == run->second->files.end()) return nullptr;
    ++run->second->readers[{extent.segment, extent.offset}].count;
    return std::make_shared<Reader>(state_, run->second, file->second, extent);
  });
  if (!reader) return Fail(NoSegment(extent));
  return reader;
}

Status SegmentFiles::Write(const Extent& extent, uint64_t at, std::span<const char> bytes) {
  if (at > extent.size || bytes.size() > extent.size - at)
    return Fail(Code::kOutOfRange, fmt::format("{} bytes at {} do not fit an extent of {} bytes",
                                               bytes.size(), at, extent.size));
  UMBEL_ASSIGN(const auto file, FileOf(extent));
  return file->Write(extent.offset + at, bytes);
}

Status SegmentFiles::Sync(const Extent& extent) {
  if (!sync_) return {};
  UMBEL_ASSIGN(const auto file, FileOf(extent));
  Status status = file->Sync();
  if (!status.ok()) {
    // The disk lost pages of this file: give it nothing new.
    state_->With([&](State& state) {
      if (const auto run = state.runs.find(extent.run_id); run != state.runs.end())
        run->second->extents.RetireSegment(extent.segment);
    });
  }
  return status;
}

Result<std::string> SegmentFiles::Read(const Extent& extent) {
  UMBEL_ASSIGN(const auto reader, Borrow(extent));
  return reader->file().Read(extent.offset, extent.size);
}

Result<std::shared_ptr<SegmentFile>> SegmentFiles::File(const Extent& extent) {
  UMBEL_ASSIGN(std::shared_ptr<SegmentFile> reader, Borrow(extent));
  return reader;
}

void SegmentFiles::Free(const Extent& extent) {
  state_->With([&](State& state) {
    const auto run = state.runs.find(extent.run_id);
    if (run == state.runs.end()) return;
    const auto reader = run->second->readers.find({extent.segment, extent.offset});
    if (reader != run->second->readers.end())
      reader->second.freed = true;
    else
      run->second->extents.Free(PlaceOf(extent), extent.size);
  });
}

void SegmentFiles::DropRun(RunId run_id) {
  const std::shared_ptr<Run> run = state_->With([&](State& state) -> std::shared_ptr<Run> {
    const auto found = state.runs.find(run_id);
    if (found == state.runs.end()) return nullptr;
    std::shared_ptr<Run> taken = std::move(found->second);
    state.runs.erase(found);
    taken->dropped = true;
    return taken;
  });
  if (!run) return;
  // Whoever still reads holds the file itself; nobody adds to `files` of a dropped run.
  for (const auto& [number, file] : run->files) file->Unlink();
  if (!directory_.empty()) ::rmdir((directory_ + "/" + Folder(run_id)).c_str());
}

std::optional<uint32_t> SegmentNumber(const fs::path& path) {
  const std::string name = path.stem().native();
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || path.extension() != ".seg" ||
      number == 0)
    return std::nullopt;
  return number;
}

std::optional<RunId> RunOfFolder(const fs::path& path) {
  const std::string name = path.filename().native();
  RunId run_id;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), run_id.value, 16);
  if (error != std::errc() || end != name.data() + name.size() || Folder(run_id) != name)
    return std::nullopt;
  return run_id;
}

Status SegmentFiles::Recover(const std::vector<ObjectRow>& known) {
  if (directory_.empty()) return {};
  UMBEL_TRY(MakeDirectories(directory_));
  State recovered;
  for (const ObjectRow& row : known) {
    std::shared_ptr<Run>& run = recovered.runs[row.run_id];
    if (!run) run = std::make_shared<Run>();
    if (row.segment == 0) continue;
    if (row.offset > ExtentMap::kSizeMax || row.size > ExtentMap::kSizeMax ||
        !run->extents.TakeAt({row.segment, row.offset}, row.size))
      return Fail(Code::kDataLoss, fmt::format("object {} of run {} overlaps another in segment {}",
                                               row.object_id.Hex(), row.run_id, row.segment));
    recovered.next_segment = std::max(recovered.next_segment, row.segment + 1);
  }

  std::error_code error;
  for (const fs::directory_entry& folder : fs::directory_iterator(directory_, error)) {
    const std::optional<RunId> run_id = RunOfFolder(folder.path());
    if (!run_id.has_value()) continue;  // not ours
    const auto run = recovered.runs.find(*run_id);
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder.path(), ignored)) {
      const std::optional<uint32_t> number = SegmentNumber(entry.path());
      if (!number.has_value()) continue;
      if (run == recovered.runs.end()) {
        ::unlink(entry.path().c_str());
        continue;
      }
      UMBEL_ASSIGN(auto file, DataFile::Open(entry.path().native(), total_));
      run->second->extents.AddSegment(*number, file->size());
      run->second->files[*number] = std::move(file);
      recovered.next_segment = std::max(recovered.next_segment, *number + 1);
    }
    if (run == recovered.runs.end()) ::rmdir(folder.path().c_str());
  }
  if (error)
    return Fail(Code::kUnavailable,
                fmt::format("cannot read the folder '{}': {}", directory_, error.message()));
  state_->With([&](State& state) { state = std::move(recovered); });
  return {};
}

}  // namespace

Result<std::unique_ptr<Segments>> Segments::Open(const std::string& directory, bool sync,
                                                 const std::vector<ObjectRow>& known,
                                                 uint64_t segment_bytes) {
  auto segments =
      std::make_unique<SegmentFiles>(directory, sync, std::max<uint64_t>(segment_bytes, 1));
  UMBEL_TRY(segments->Recover(known));
  return segments;
}

}  // namespace umbel::store
