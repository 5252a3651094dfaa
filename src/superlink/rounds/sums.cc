#include "superlink/rounds/sums.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "aggregation/exact_sum.h"
#include "base/file.h"
#include "base/parallel_for.h"

namespace umbel::superlink::rounds {
namespace {

using aggregation::Dtype;
using aggregation::ElementType;
using aggregation::ExactSum;

// Sums may take this many bytes: twice what ordinary float32 needs is out of bounds for a whole
// model, so that magnitudes chosen to be hostile cost their sender the round and nobody the memory.
constexpr double kSumModels = 5;
constexpr uint64_t kSumBytes = uint64_t{32} << 20;

constexpr uint64_t kTaskElements = uint64_t{64}
                                   << 10;  // 256 KiB of float32: stays in a core's cache
constexpr size_t kTogetherMax = 16;        // updates read side by side
constexpr uint64_t kThreadsFrom = uint64_t{4}
                                  << 20;  // bytes: below, threads cost more than they do
constexpr uint64_t kFileVersion = 2;

/// An update's array as it is folded: in C order, from its chunks or from a copy.
struct Source {
  const ModelArray* array = nullptr;
  Dtype dtype;
  std::vector<char> transposed;  // of an array in Fortran order

  Status Read(uint64_t first, std::span<char> out) const {
    const uint64_t item = dtype.type.item_size;
    if (!transposed.empty()) {
      std::copy_n(transposed.data() + first * item, out.size(), out.data());
      return {};
    }
    return array->file.Read(array->npy.data_offset + first * item, out);
  }
};

bool NeedsTransposing(const tensor::NpyHead& npy) {
  return npy.fortran_order && npy.element_count > 0 &&
         std::count_if(npy.shape.begin(), npy.shape.end(), [](uint64_t n) { return n > 1; }) > 1;
}

/// Column by column to row by row.
Result<std::vector<char>> Transpose(const ModelArray& array) {
  const auto& shape = array.npy.shape;
  const size_t item = array.npy.item_size;
  std::vector<char> in(static_cast<size_t>(array.data_bytes()));
  UMBEL_TRY(array.file.Read(array.npy.data_offset, in));
  std::vector<char> out(in.size());
  std::vector<uint64_t> index(shape.size(), 0);  // in C order
  std::vector<size_t> stride(shape.size());
  size_t step = item;
  for (size_t d = 0; d < shape.size(); ++d) {
    stride[d] = step;
    step *= static_cast<size_t>(shape[d]);
  }
  size_t from = 0;
  for (size_t at = 0; at < out.size(); at += item) {
    std::copy_n(in.data() + from, item, out.data() + at);
    for (size_t d = shape.size(); d-- > 0;) {
      from += stride[d];
      if (++index[d] < shape[d]) break;
      from -= stride[d] * static_cast<size_t>(shape[d]);
      index[d] = 0;
    }
  }
  return out;
}

/// Elements [first, first + count) of one array, and who has been folded there.
struct FoldTask {
  size_t array = 0;
  ElementType type;
  uint64_t first = 0;
  uint64_t count = 0;
  std::vector<size_t> updates;  // whose elements are still to be folded there
  std::vector<size_t> folded;
};

/// What of [0, count) is in none of the ranges, cut where tasks are.
std::vector<ElementRange> Rest(uint64_t count, const std::vector<ElementRange>& folded) {
  std::vector<ElementRange> rest;
  const auto cut = [&](uint64_t from, uint64_t end) {
    while (from < end) {
      const uint64_t stop = std::min(end, (from / kTaskElements + 1) * kTaskElements);
      rest.push_back({from, stop - from});
      from = stop;
    }
  };
  uint64_t at = 0;
  for (const ElementRange& range : folded) {
    cut(at, range.first);
    at = range.first + range.count;
  }
  cut(at, count);
  return rest;
}

class Sums final : public Aggregator {
 public:
  explicit Sums(const Model& model)
      : budget_(static_cast<uint64_t>(kSumModels * static_cast<double>(model.bytes())) +
                kSumBytes) {
    for (const ModelArray& array : model.arrays) {
      names_.push_back(array.name);
      shapes_.push_back(array.npy.shape);
      counts_.push_back(array.npy.element_count);
      types_.push_back(array.npy.dtype);
    }
    sums_.resize(names_.size());
    counted_.resize(names_.size());
  }

  Status CheckTypes() const {
    for (size_t a = 0; a < names_.size(); ++a)
      if (const auto dtype = aggregation::ParseDtype(types_[a]); !dtype.ok())
        return Fail(Code::kInvalidArgument,
                    fmt::format("array '{}' of the model: {}", names_[a], dtype.error().message));
    return {};
  }

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    std::vector<Refused> refused;
    for (size_t from = 0; from < updates.size(); from += kTogetherMax) {
      const std::span<Update> group(updates.data() + from,
                                    std::min(kTogetherMax, updates.size() - from));
      UMBEL_ASSIGN(std::vector<Refused> some, AddGroup(group));
      for (Refused& one : some) {
        one.index += from;
        refused.push_back(std::move(one));
      }
    }
    return refused;
  }

  bool CanFoldPieces() const override { return true; }
  Status AddPieces(std::span<const Piece> pieces) override { return FoldPieces(pieces, false); }
  Status RemovePieces(std::span<const Piece> pieces) override {
    ++takebacks_;
    return FoldPieces(pieces, true);
  }

  bool CanSave() const override { return true; }

  Status Save(const std::string& path) override {
    const std::string fresh = path + ".new";
    const Fd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file.valid()) return Fail(SystemError("create", fresh));
    const aggregation::ByteWriter writer = [&](std::span<const std::byte> bytes) -> Status {
      while (!bytes.empty()) {
        const ssize_t put = ::write(file.get(), bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return Fail(SystemError("write", fresh));
        bytes = bytes.subspan(static_cast<size_t>(put));
      }
      return {};
    };
    UMBEL_TRY(WriteAll(writer));
    if (::fdatasync(file.get()) != 0) return Fail(SystemError("sync", fresh));
    if (::rename(fresh.c_str(), path.c_str()) != 0) return Fail(SystemError("rename", fresh));
    const std::string folder = path.substr(0, path.rfind('/'));
    const Fd entry(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!entry.valid() || ::fsync(entry.get()) != 0) return Fail(SystemError("sync", folder));
    return {};
  }

  Status Load(const std::string& path) override {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) return Fail(SystemError("open", path));
    const aggregation::ByteReader reader = [&](std::span<std::byte> bytes) -> Status {
      while (!bytes.empty()) {
        const ssize_t got = ::read(file.get(), bytes.data(), bytes.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return Fail(SystemError("read", path));
        if (got == 0) return Fail(Code::kDataLoss, "it is too short");
        bytes = bytes.subspan(static_cast<size_t>(got));
      }
      return {};
    };
    const Status read = ReadAll(reader);
    if (read.ok()) return {};
    return Fail(read.error().code,
                fmt::format("the sums in '{}' cannot be read: {}", path, read.error().message));
  }

  Result<NextModel> Finish(uint32_t) override {
    std::vector<NewArray> arrays;
    const aggregation::Divisor divisor(total_);
    for (size_t a = 0; a < names_.size(); ++a) {
      UMBEL_TRY(Unite(a));
      arrays.push_back(MeanOf(a, divisor));
    }
    return NextModel{std::move(arrays), {}};
  }

  Result<std::optional<Foreseen>> Foresee(size_t array, const aggregation::Divisor& total,
                                          uint32_t) override {
    const std::lock_guard lock(mutex_);
    // Replies of several dtypes are united at the end.
    if (sums_[array].size() != 1) return std::optional<Foreseen>();
    return std::optional(Foreseen{MeanOf(array, total), {}});
  }
  uint64_t takebacks() const override { return takebacks_; }

 private:
  using ByType = std::map<std::string, ExactSum>;

  NewArray MeanOf(size_t a, const aggregation::Divisor& divisor) const {
    const ExactSum& sum = sums_[a].begin()->second;
    NewArray array{names_[a], aggregation::ResultType(sum.type()).Descr(), shapes_[a], {}};
    array.fill = [&sum, divisor](uint64_t first, uint64_t count, std::span<char> out) {
      return sum.Mean(divisor, first, count, std::as_writable_bytes(out));
    };
    return array;
  }

  Result<ExactSum*> SumFor(size_t array, ElementType type) {
    const std::lock_guard lock(mutex_);
    ByType& sums = sums_[array];
    const std::string key = type.Descr();
    const auto found = sums.find(key);
    if (found != sums.end()) return &found->second;
    UMBEL_ASSIGN(ExactSum made, ExactSum::Make(type, counts_[array], {&budget_, nullptr}));
    return &sums.emplace(key, std::move(made)).first->second;
  }

  Result<std::vector<Refused>> AddGroup(std::span<Update> group) {
    std::vector<std::vector<Source>> sources(group.size());
    for (size_t u = 0; u < group.size(); ++u) {
      for (const ModelArray& array : group[u].arrays) {
        UMBEL_ASSIGN(const Dtype dtype, aggregation::ParseDtype(array.npy.dtype));
        Source source{&array, dtype, {}};
        if (NeedsTransposing(array.npy)) {
          UMBEL_ASSIGN(source.transposed, Transpose(array));
        }
        sources[u].push_back(std::move(source));
      }
    }
    uint64_t bytes = 0;
    UMBEL_ASSIGN(std::vector<FoldTask> tasks, PlanTasks(group, sources, &bytes));
    std::vector<std::optional<Refused>> bad(group.size());
    std::mutex mutex;
    const size_t threads = bytes < kThreadsFrom ? 1 : HardwareThreads();
    UMBEL_TRY(ParallelFor(tasks.size(), threads,
                          [&](size_t t) { return RunTask(tasks[t], group, sources, bad, mutex); }));
    UMBEL_TRY(ParallelFor(tasks.size(), threads,
                          [&](size_t t) { return UndoTask(tasks[t], group, sources, bad); }));
    std::vector<Refused> refused;
    for (size_t u = 0; u < group.size(); ++u) {
      if (bad[u]) {
        UMBEL_TRY(RemoveFolded(group[u], sources[u]));
        refused.push_back(*bad[u]);
      } else {
        UMBEL_TRY(total_.Add(group[u].weight));
        for (size_t a = 0; a < names_.size(); ++a) ++counted_[a][sources[u][a].dtype.type.Descr()];
      }
    }
    // The room that refused updates have taken is for others.
    if (!refused.empty())
      for (ByType& sums : sums_)
        for (auto& [key, sum] : sums) sum.Compact();
    return refused;
  }

  /// Who is to be folded where: updates with the same range of the same array together.
  Result<std::vector<FoldTask>> PlanTasks(std::span<Update> group,
                                          const std::vector<std::vector<Source>>& sources,
                                          uint64_t* bytes) {
    std::vector<FoldTask> tasks;
    static const std::vector<ElementRange> kNothing;
    for (size_t a = 0; a < names_.size(); ++a) {
      std::map<std::tuple<std::string, uint64_t, uint64_t>, size_t> places;
      for (size_t u = 0; u < group.size(); ++u) {
        const ElementType type = sources[u][a].dtype.type;
        UMBEL_ASSIGN(ExactSum * sum, SumFor(a, type));
        static_cast<void>(sum);
        const auto& folded = group[u].folded.empty() ? kNothing : group[u].folded[a];
        for (const ElementRange& range : Rest(counts_[a], folded)) {
          const auto [at, fresh] =
              places.try_emplace({type.Descr(), range.first, range.count}, tasks.size());
          if (fresh) tasks.push_back({a, type, range.first, range.count, {}, {}});
          tasks[at->second].updates.push_back(u);
          *bytes += range.count * type.item_size;
        }
      }
    }
    return tasks;
  }

  /// An update that was refused had begun to be folded while it arrived.
  Status RemoveFolded(const Update& update, const std::vector<Source>& sources) {
    ++takebacks_;
    std::vector<char> bytes;
    for (size_t a = 0; a < update.folded.size(); ++a) {
      for (const ElementRange& range : update.folded[a]) {
        const ElementType type = sources[a].dtype.type;
        for (const ElementRange& part : Cut(range)) {
          bytes.resize(static_cast<size_t>(part.count * type.item_size));
          UMBEL_TRY(sources[a].Read(part.first, bytes));
          const aggregation::Update one{std::as_bytes(std::span<const char>(bytes)), update.weight,
                                        sources[a].dtype.swapped};
          UMBEL_TRY(sums_[a].at(type.Descr()).Remove({&one, 1}, part.first, part.count));
        }
      }
    }
    return {};
  }

  static std::vector<ElementRange> Cut(const ElementRange& range) {
    std::vector<ElementRange> parts;
    for (uint64_t done = 0; done < range.count; done += kTaskElements)
      parts.push_back({range.first + done, std::min(kTaskElements, range.count - done)});
    return parts;
  }

  Status FoldPieces(std::span<const Piece> pieces, bool remove) {
    const Piece& any = pieces[0];
    UMBEL_ASSIGN(const Dtype dtype, aggregation::ParseDtype(any.dtype));
    UMBEL_ASSIGN(ExactSum * sum, SumFor(any.array, dtype.type));
    const uint64_t item = dtype.type.item_size;
    std::vector<std::vector<char>> bytes(pieces.size());
    const std::vector<ElementRange> parts = Cut({any.first, any.count});
    const auto fold = [&](const ElementRange& part, bool out) -> Status {
      std::vector<aggregation::Update> views;
      for (size_t i = 0; i < pieces.size(); ++i) {
        bytes[i].resize(static_cast<size_t>(part.count * item));
        const uint64_t at = pieces[i].offset + (part.first - any.first) * item;
        UMBEL_TRY(ReadPlace(*pieces[i].place, at, bytes[i]));
        views.push_back(
            {std::as_bytes(std::span<const char>(bytes[i])), pieces[i].weight, dtype.swapped});
      }
      return out ? sum->Remove(views, part.first, part.count)
                 : sum->Fold(views, part.first, part.count);
    };
    for (size_t p = 0; p < parts.size(); ++p) {
      Status status = fold(parts[p], remove);
      if (status.ok()) continue;
      for (size_t q = 0; q < p; ++q) UMBEL_TRY(fold(parts[q], !remove));
      return status;
    }
    return {};
  }

  struct Loaded {
    std::vector<size_t> updates;
    std::vector<std::vector<char>> bytes;
    std::vector<aggregation::Update> views;
  };

  static Status LoadRange(const FoldTask& task, const std::vector<size_t>& members,
                          std::span<Update> group, const std::vector<std::vector<Source>>& sources,
                          Loaded& loaded) {
    loaded.updates = members;
    loaded.bytes.resize(std::max(loaded.bytes.size(), members.size()));
    loaded.views.clear();
    for (size_t i = 0; i < members.size(); ++i) {
      const Source& source = sources[members[i]][task.array];
      loaded.bytes[i].resize(static_cast<size_t>(task.count * task.type.item_size));
      UMBEL_TRY(source.Read(task.first, loaded.bytes[i]));
      loaded.views.push_back({std::as_bytes(std::span<const char>(loaded.bytes[i])),
                              group[members[i]].weight, source.dtype.swapped});
    }
    return {};
  }

  Status RunTask(FoldTask& task, std::span<Update> group,
                 const std::vector<std::vector<Source>>& sources,
                 std::vector<std::optional<Refused>>& bad, std::mutex& mutex) {
    std::vector<size_t> members;
    {
      const std::lock_guard lock(mutex);
      for (const size_t u : task.updates)
        if (!bad[u]) members.push_back(u);
    }
    if (members.empty()) return {};
    thread_local Loaded loaded;
    UMBEL_TRY(LoadRange(task, members, group, sources, loaded));
    ExactSum& sum = sums_[task.array].at(task.type.Descr());
    const auto refuse = [&](size_t u, Outcome outcome, std::string why) {
      const std::lock_guard lock(mutex);
      if (!bad[u])
        bad[u] = Refused{u, outcome, fmt::format("array '{}': {}", names_[task.array], why)};
    };
    Status folded = sum.Fold(loaded.views, task.first, task.count);
    if (folded.ok()) {
      task.folded = members;
      return {};
    }
    // Whose fault it is: one by one.
    for (size_t i = 0; i < members.size(); ++i) {
      const std::span<const aggregation::Update> one(&loaded.views[i], 1);
      folded = sum.Fold(one, task.first, task.count);
      if (folded.ok()) {
        task.folded.push_back(members[i]);
      } else if (folded.error().code == Code::kDataLoss) {
        refuse(members[i], Outcome::kNonFinite, "it has a NaN or an infinity");
      } else if (folded.error().code == Code::kResourceExhausted) {
        refuse(
            members[i], Outcome::kTooLarge,
            fmt::format("its range of magnitudes would take more than the {} bytes that sums may "
                        "take",
                        budget_.bytes_max()));
      } else {
        return folded;
      }
    }
    return {};
  }

  /// Takes out again what refused updates have left in other places.
  Status UndoTask(const FoldTask& task, std::span<Update> group,
                  const std::vector<std::vector<Source>>& sources,
                  const std::vector<std::optional<Refused>>& bad) {
    std::vector<size_t> members;
    for (const size_t u : task.folded)
      if (bad[u]) members.push_back(u);
    if (members.empty()) return {};
    thread_local Loaded loaded;
    UMBEL_TRY(LoadRange(task, members, group, sources, loaded));
    return sums_[task.array].at(task.type.Descr()).Remove(loaded.views, task.first, task.count);
  }

  /// Replies may differ in dtype: all of them count, and the mean has the type of most of them (of
  /// as many the wider), so that a single node does not change it for all. What only refused ones
  /// have brought does not show.
  Status Unite(size_t array) {
    ByType& sums = sums_[array];
    std::erase_if(sums, [&](const auto& entry) { return !counted_[array].contains(entry.first); });
    if (sums.empty()) {
      UMBEL_ASSIGN(const Dtype dtype, aggregation::ParseDtype(types_[array]));
      UMBEL_ASSIGN(ExactSum * sum, SumFor(array, dtype.type));
      static_cast<void>(sum);
      return {};
    }
    std::map<std::pair<uint64_t, uint8_t>, ElementType> by_count;
    std::map<uint8_t, uint64_t> counts;  // by the size of the mean's element
    for (const auto& [key, sum] : sums)
      counts[aggregation::ResultType(sum.type()).item_size] += counted_[array][key];
    for (const auto& [key, sum] : sums) {
      const ElementType type = aggregation::ResultType(sum.type());
      by_count[{counts[type.item_size], type.item_size}] = type;
    }
    const ElementType chosen = by_count.rbegin()->second;
    for (auto& [key, sum] : sums) UMBEL_TRY(sum.ReadAs(chosen));
    while (sums.size() > 1) {
      const auto second = std::next(sums.begin());
      UMBEL_TRY(sums.begin()->second.Merge(second->second));
      sums.erase(second);
    }
    return {};
  }

  Status WriteAll(const aggregation::ByteWriter& writer) {
    aggregation::WordSink sink(writer);
    UMBEL_TRY(sink.Put(kFileVersion));
    UMBEL_TRY(sink.Put(sums_.size()));
    UMBEL_TRY(sink.Put(total_.words()));
    for (size_t a = 0; a < sums_.size(); ++a) {
      UMBEL_TRY(sink.Put(counted_[a].size()));
      for (const auto& [key, count] : counted_[a]) {
        UMBEL_TRY(sink.Put(count));
        UMBEL_TRY(sums_[a].at(key).Write(sink));
      }
    }
    return sink.Finish();
  }

  Status ReadAll(const aggregation::ByteReader& reader) {
    aggregation::WordSource source(reader);
    const auto broken = [](std::string_view what) {
      return Fail(Code::kDataLoss, fmt::format("the file {}", what));
    };
    UMBEL_ASSIGN(const uint64_t version, source.Take());
    if (version != kFileVersion)
      return broken(fmt::format("has version {}, not {}", version, kFileVersion));
    UMBEL_ASSIGN(const uint64_t arrays, source.Take());
    if (arrays != sums_.size())
      return broken(fmt::format("is of {} arrays, the model has {}", arrays, sums_.size()));
    std::array<uint64_t, aggregation::WeightTotal::kWords> words;
    for (uint64_t& word : words) {
      UMBEL_ASSIGN(word, source.Take());
    }
    total_ = aggregation::WeightTotal::FromWords(words);
    for (size_t a = 0; a < sums_.size(); ++a) {
      UMBEL_ASSIGN(const uint64_t types, source.Take());
      if (types > 64) return broken("is damaged");
      for (uint64_t i = 0; i < types; ++i) {
        UMBEL_ASSIGN(const uint64_t count, source.Take());
        UMBEL_ASSIGN(ExactSum sum, ExactSum::Read(source, {&budget_, nullptr}, counts_[a]));
        if (sum.count() != counts_[a]) return broken("is of another model");
        const std::string key = sum.type().Descr();
        counted_[a][key] = count;
        sums_[a].emplace(key, std::move(sum));
      }
    }
    return source.Finish();
  }

  aggregation::Budget budget_;
  std::vector<std::string> names_;
  std::vector<std::vector<uint64_t>> shapes_;
  std::vector<uint64_t> counts_;
  std::vector<std::string> types_;
  std::mutex mutex_;          // of the maps below, not of the sums in them
  std::vector<ByType> sums_;  // of each array, by the dtype of the updates
  std::vector<std::map<std::string, uint64_t>> counted_;  // of each array: updates of each dtype
  aggregation::WeightTotal total_;
  std::atomic<uint64_t> takebacks_ = 0;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeSums(const Model& model) {
  auto sums = std::make_unique<Sums>(model);
  UMBEL_TRY(sums->CheckTypes());
  return std::unique_ptr<Aggregator>(std::move(sums));
}

}  // namespace umbel::superlink::rounds
