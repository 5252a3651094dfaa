#include "superlink/rounds/model.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "base/parallel_for.h"
#include "flower/record_json.h"
#include "flwr/common.pb.h"
#include "tensor/hash_lanes.h"
#include "tensor/object.h"
#include "tensor/quote.h"
#include "tensor/tree.h"

namespace umbel::superlink::rounds {
namespace {

using tensor::ObjectType;
using tensor::TreeNode;

constexpr uint64_t kInlineMax = uint64_t{64} << 10;  // as for objects that are received
constexpr size_t kHashTogether = 4;                  // chunks: their memory is each thread's
constexpr uint64_t kNamesMax = uint64_t{64} << 20;
constexpr size_t kFirstLook = 256;  // of an NPY file: heads are 128 bytes mostly

Result<ModelArray> OpenArray(const std::string& name, const flower::ArrayRef& ref,
                             RunObjects& objects) {
  const auto bad = [&](std::string_view what) {
    return Fail(Code::kInvalidArgument, fmt::format("array {}: {}", tensor::Quote(name), what));
  };
  if (ref.stype != "numpy.ndarray")
    return bad(fmt::format("its stype {} is not numpy.ndarray", tensor::Quote(ref.stype)));
  ModelArray array{name, {}, objects.File(ref)};
  const uint64_t size = array.file.size();
  for (size_t look = kFirstLook;; look *= 4) {
    std::string prefix(static_cast<size_t>(std::min<uint64_t>(look, size)), '\0');
    UMBEL_TRY(array.file.Read(0, prefix));
    auto head = tensor::ParseNpyHead(prefix);
    if (!head.ok()) return bad(head.error().message);
    if (head->has_value()) {
      array.npy = **std::move(head);
      break;
    }
    if (prefix.size() == size) return bad("ends within its NPY head");
  }
  if (size - array.npy.data_offset != array.data_bytes())
    return bad(fmt::format("has {} bytes of data, its head says {}", size - array.npy.data_offset,
                           array.data_bytes()));
  return array;
}

/// A chunk of a new array: bytes [begin, begin + size) of its NPY file.
struct Cut {
  uint64_t begin = 0;
  uint64_t size = 0;
  ObjectId id;
  State::ModelObject object;
};

struct Layout {
  std::string head;  // of the NPY file
  uint64_t item = 0;
};

/// What one chunk is made from.
struct Part {
  const NewArray* array = nullptr;
  const Layout* layout = nullptr;
  Cut* cut = nullptr;
};

/// One chunk's object. `whole` may hold an earlier one, whose memory is used again.
Status FillCut(const NewArray& array, const Layout& layout, const Cut& cut, std::string& whole) {
  std::string head =
      fmt::format("{}  {}", tensor::ObjectTypeName(ObjectType::kArrayChunk), cut.size);
  head.push_back('\0');
  const size_t data = head.size();
  whole.resize(data + static_cast<size_t>(cut.size));
  std::copy(head.begin(), head.end(), whole.begin());
  uint64_t begin = cut.begin;
  std::span<char> out(whole.data() + data, static_cast<size_t>(cut.size));
  if (begin < layout.head.size()) {
    const size_t take =
        static_cast<size_t>(std::min<uint64_t>(layout.head.size() - begin, out.size()));
    std::copy_n(layout.head.data() + begin, take, out.data());
    out = out.subspan(take);
    begin += take;
  }
  const uint64_t first = (begin - layout.head.size()) / layout.item;
  if (out.empty()) return {};
  return array.fill(first, out.size() / layout.item, out);
}

/// Puts it where it stays.
Status StoreCut(Engine& engine, RunId run_id, const std::string& whole, Cut& cut) {
  store::ObjectRow& row = cut.object.row;
  row.run_id = run_id;
  row.object_id = cut.id;
  row.size = whole.size();
  if (whole.size() < kInlineMax) {
    row.content = whole;
    return {};
  }
  UMBEL_ASSIGN(const store::Extent extent, engine.segments().Allocate(run_id, whole.size()));
  cut.object.extent = engine.OwnExtent(extent);
  row.segment = extent.segment;
  row.offset = extent.offset;
  UMBEL_TRY(engine.segments().Write(extent, 0, whole));
  if (engine.sync_files()) UMBEL_TRY(engine.segments().Sync(extent));
  return {};
}

/// A few chunks at once, because they are hashed side by side. `wholes` is room for them: fresh
/// memory for each would cost as much as hashing it.
Status WriteParts(Engine& engine, RunId run_id, std::span<const Part> parts,
                  std::vector<std::string>& wholes) {
  std::vector<std::string_view> views;
  wholes.resize(std::max(wholes.size(), parts.size()));
  for (size_t i = 0; i < parts.size(); ++i) {
    UMBEL_TRY(FillCut(*parts[i].array, *parts[i].layout, *parts[i].cut, wholes[i]));
    views.push_back(wholes[i]);
  }
  std::vector<ObjectId> ids(parts.size());
  tensor::Sha256Many(views, ids);
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].cut->id = ids[i];
    UMBEL_TRY(StoreCut(engine, run_id, wholes[i], *parts[i].cut));
  }
  return {};
}

ObjectId AddSmall(RunId run_id, ObjectType type, std::span<const ObjectId> children,
                  std::string_view body, NewModel& made) {
  State::ModelObject object;
  object.row.run_id = run_id;
  object.row.content = tensor::MakeObject(type, children, body);
  object.row.size = object.row.content.size();
  object.row.object_id = tensor::ObjectIdOf(object.row.content);
  made.objects.push_back(std::move(object));
  return made.objects.back().row.object_id;
}

/// Children, each once, in order of first appearance.
size_t PlaceOf(std::vector<ObjectId>& ids, const ObjectId& id) {
  const auto at = std::find(ids.begin(), ids.end(), id);
  if (at != ids.end()) return static_cast<size_t>(at - ids.begin());
  ids.push_back(id);
  return ids.size() - 1;
}

}  // namespace

uint64_t Model::bytes() const {
  uint64_t sum = 0;
  for (const ModelArray& array : arrays) sum += array.data_bytes();
  return sum;
}

Result<std::vector<ModelArray>> OpenArrays(const flower::ArrayRecord& record, RunObjects& objects) {
  std::vector<ModelArray> arrays;
  arrays.reserve(record.size());
  for (const auto& [name, ref] : record) {
    UMBEL_ASSIGN(ModelArray array, OpenArray(name, ref, objects));
    arrays.push_back(std::move(array));
  }
  return arrays;
}

Result<Model> LoadModel(Engine& engine, RunId run_id, std::string tree) {
  UMBEL_ASSIGN(const tensor::TreeIds ids, tensor::ParseTree(tree));
  RunObjects objects(engine, run_id);
  Model model;
  UMBEL_ASSIGN(const std::string root, objects.Read(ids.root, tensor::kObjectHeadMax));
  UMBEL_ASSIGN(const tensor::ObjectHead head, tensor::ParseObject(root));
  if (head.type == ObjectType::kArrayRecord) {
    model.record = ids.root;
    model.tree = std::move(tree);
  } else {
    flower::Budget budget{kNamesMax};
    UMBEL_ASSIGN(const auto names,
                 flower::ReadNames(std::string_view(root).substr(head.head_size), budget));
    flwr::proto::ObjectTree parsed;
    if (!parsed.ParseFromString(tree) || names.empty())
      return Fail(Code::kDataLoss, "the tree of a model cannot be read");
    model.record = names[0].second;
    for (const auto& child : parsed.children())
      if (child.object_id() == model.record.Hex()) model.tree = child.SerializeAsString();
    for (size_t i = 1; i < names.size(); ++i) {
      UMBEL_ASSIGN(const auto record, flower::ReadArrayRecord(names[i].second, objects));
      UMBEL_ASSIGN(auto moment, OpenArrays(record, objects));
      model.moments.push_back(std::move(moment));
    }
  }
  UMBEL_ASSIGN(const flower::ArrayRecord record, flower::ReadArrayRecord(model.record, objects));
  UMBEL_ASSIGN(model.arrays, OpenArrays(record, objects));
  return model;
}

bool IsPlain(const tensor::NpyHead& npy) {
  const bool one_dimension =
      std::count_if(npy.shape.begin(), npy.shape.end(), [](uint64_t n) { return n > 1; }) <= 1;
  return (!npy.fortran_order || one_dimension) && npy.dtype[0] != '>';
}

bool IsByteRow(const tensor::NpyHead& npy) {
  return npy.dtype.ends_with("u1") && npy.shape.size() == 1;
}

std::string DescrOf(aggregation::NumberType type) {
  UMBEL_CHECK(aggregation::IsFloat(type));
  return fmt::format("<f{}", aggregation::ElementSize(type));
}

Result<aggregation::NumberType> TypeOf(std::string_view descr) {
  UMBEL_ASSIGN(const std::string name, DtypeName(descr));
  return aggregation::NumberTypeOf(name);
}

namespace {

/// One array's chunks.
struct ArrayWork {
  std::string dtype;
  std::vector<uint64_t> shape;
  Layout layout;
  std::vector<Cut> cuts;
  size_t written = 0;  // of them, from the first on
};

class WriterImpl final : public ModelWriter {
 public:
  WriterImpl(Engine& engine, RunId run_id) : engine_(engine), run_id_(run_id) {}

  Status Write(std::span<const Ready> ready) override {
    std::vector<Part> parts;
    std::vector<size_t> until;
    for (const Ready& one : ready) {
      ArrayWork& work = At(one.record, one.array);
      UMBEL_TRY(Lay(*one.part, work));
      size_t end = work.written;
      while (end < work.cuts.size() && LastElement(work, end) <= one.elements) ++end;
      Plan(work, *one.part, end, parts);
      until.push_back(end);
    }
    UMBEL_TRY(Run(parts));
    for (size_t i = 0; i < ready.size(); ++i)
      At(ready[i].record, ready[i].array).written = until[i];
    return {};
  }

  Result<NewModel> Finish(NextModel next) override {
    std::vector<const std::vector<NewArray>*> records = {&next.arrays};
    for (const auto& moment : next.moments) records.push_back(&moment);
    std::vector<Part> parts;
    for (size_t r = 0; r < records.size(); ++r) {
      for (size_t a = 0; a < records[r]->size(); ++a) {
        ArrayWork& work = At(r, a);
        UMBEL_TRY(Lay((*records[r])[a], work));
        Plan(work, (*records[r])[a], work.cuts.size(), parts);
      }
    }
    UMBEL_TRY(Run(parts));
    NewModel made;
    TreeNode root;
    UMBEL_ASSIGN(TreeNode arrays, AddRecord(0, next.arrays, made));
    if (next.moments.empty()) {
      made.tree = tensor::EncodeTree(arrays);
      return made;
    }
    flower::Ordered<ObjectId> names = {{"arrays", arrays.id}};
    std::vector<ObjectId> children = {arrays.id};
    root.children.push_back(std::move(arrays));
    for (size_t m = 0; m < next.moments.size(); ++m) {
      UMBEL_ASSIGN(TreeNode record, AddRecord(m + 1, next.moments[m], made));
      names.emplace_back(fmt::format("moment-{}", names.size()), record.id);
      const size_t before = children.size();
      PlaceOf(children, record.id);
      if (children.size() > before) root.children.push_back(std::move(record));
    }
    root.id = AddSmall(run_id_, ObjectType::kRecordDict, children, flower::WriteNames(names), made);
    made.tree = tensor::EncodeTree(root);
    return made;
  }

 private:
  ArrayWork& At(size_t record, size_t array) { return work_[{record, array}]; }

  /// Cuts the array, unless it is cut already. One of another kind begins anew.
  static Status Lay(const NewArray& array, ArrayWork& work) {
    if (!work.cuts.empty() && work.dtype == array.dtype && work.shape == array.shape) return {};
    work = {array.dtype, array.shape, {}, {}, 0};
    work.layout.head = tensor::MakeNpyHead(array.dtype, array.shape);
    UMBEL_ASSIGN(const auto npy, tensor::ParseNpyHead(work.layout.head));
    UMBEL_CHECK(npy.has_value());
    work.layout.item = npy->item_size;
    const uint64_t size = work.layout.head.size() + npy->item_size * npy->element_count;
    for (uint64_t begin = 0; begin < size; begin += flower::kArrayChunkSize)
      work.cuts.push_back({begin, std::min(flower::kArrayChunkSize, size - begin), {}, {}});
    return {};
  }

  /// The number of elements up to the end of a chunk.
  static uint64_t LastElement(const ArrayWork& work, size_t cut) {
    const uint64_t end = work.cuts[cut].begin + work.cuts[cut].size;
    return end <= work.layout.head.size() ? 0 : (end - work.layout.head.size()) / work.layout.item;
  }

  static void Plan(ArrayWork& work, const NewArray& array, size_t until, std::vector<Part>& parts) {
    for (size_t c = work.written; c < until; ++c)
      parts.push_back({&array, &work.layout, &work.cuts[c]});
  }

  Status Run(const std::vector<Part>& parts) {
    uint64_t bytes = 0;
    for (const Part& part : parts) bytes += part.cut->size;
    // A thread costs more than a small model does.
    const size_t threads = bytes > flower::kArrayChunkSize ? HardwareThreads() : 1;
    const size_t together = std::clamp<size_t>(parts.size() / threads, 1, kHashTogether);
    std::mutex mutex;
    return ParallelFor((parts.size() + together - 1) / together, threads, [&](size_t task) {
      const auto group = std::span(parts).subspan(
          task * together, std::min(together, parts.size() - task * together));
      std::vector<std::string> room;
      {
        const std::lock_guard lock(mutex);
        if (!rooms_.empty()) room.swap(rooms_.back()), rooms_.pop_back();
      }
      const Status written = WriteParts(engine_, run_id_, group, room);
      const std::lock_guard lock(mutex);
      rooms_.push_back(std::move(room));
      return written;
    });
  }

  /// The tree of one record and its objects.
  Result<TreeNode> AddRecord(size_t record, const std::vector<NewArray>& arrays, NewModel& made) {
    TreeNode root;
    std::vector<ObjectId> array_ids;
    flower::Ordered<ObjectId> names;
    for (size_t a = 0; a < arrays.size(); ++a) {
      UMBEL_ASSIGN(std::string dtype, DtypeName(arrays[a].dtype));
      flower::ArrayBody body{std::move(dtype), {}, "numpy.ndarray", {}};
      for (const uint64_t size : arrays[a].shape) body.shape.push_back(static_cast<int64_t>(size));
      std::vector<ObjectId> chunk_ids;
      for (Cut& cut : At(record, a).cuts) {
        body.chunks.push_back(PlaceOf(chunk_ids, cut.id));
        made.objects.push_back(std::move(cut.object));
      }
      const ObjectId id =
          AddSmall(run_id_, ObjectType::kArray, chunk_ids, flower::WriteArray(body), made);
      names.emplace_back(arrays[a].name, id);
      const size_t before = array_ids.size();
      PlaceOf(array_ids, id);
      if (array_ids.size() == before) continue;  // equal to an earlier one
      TreeNode node{id, {}};
      for (const ObjectId& chunk : chunk_ids) node.children.push_back({chunk, {}});
      root.children.push_back(std::move(node));
    }
    root.id =
        AddSmall(run_id_, ObjectType::kArrayRecord, array_ids, flower::WriteNames(names), made);
    return root;
  }

  Engine& engine_;
  const RunId run_id_;
  std::map<std::pair<size_t, size_t>, ArrayWork> work_;  // by record and array
  std::vector<std::vector<std::string>> rooms_;          // of threads that are between two tasks
};

}  // namespace

std::unique_ptr<ModelWriter> ModelWriter::Make(Engine& engine, RunId run_id) {
  return std::make_unique<WriterImpl>(engine, run_id);
}

Result<NewModel> WriteModel(Engine& engine, RunId run_id, NextModel next) {
  return ModelWriter::Make(engine, run_id)->Finish(std::move(next));
}

}  // namespace umbel::superlink::rounds
