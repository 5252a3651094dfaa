// Nodes that train. Every node pulls the whole model over the wire; the bytes are kept once, since
// they are the same objects for all.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "commands.h"
#include "federation.h"
#include "flwr/fleet.pb.h"
#include "tensor/hash_lanes.h"

namespace umbel::bench {
namespace pb = flwr::proto;
using tensor::ObjectType;

namespace {

constexpr size_t kChunkSize = 5'242'880;  // Flower's
constexpr size_t kTogether = 4;           // chunks hashed side by side
constexpr double kHeartbeatInterval = 30;
constexpr std::chrono::seconds kHeartbeatEvery{15};
constexpr std::chrono::milliseconds kPollPause{5};

struct Object {
  ObjectId id;
  ObjectType type = ObjectType::kArrayChunk;
  std::vector<ObjectId> children;
  std::string body;
};

/// What an instruction of training holds.
struct Model {
  struct Chunk {
    std::string bytes;
    size_t skip = 0;  // of an NPY head
  };
  struct Array {
    ObjectId id;
    std::string body;  // says which chunk comes where, by number: it is the reply's, too
    std::vector<size_t> chunks;
  };
  std::vector<Chunk> chunks;
  std::vector<Array> arrays;
  std::string names;  // of the arrays, with their ids

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const Chunk& chunk : chunks) sum += chunk.bytes.size() - chunk.skip;
    return sum;
  }
};

Result<Object> Parse(const ObjectId& id, std::string whole) {
  UMBEL_ASSIGN(const tensor::ObjectHead head, tensor::ParseObject(whole));
  whole.erase(0, static_cast<size_t>(head.head_size));
  return Object{id, head.type, head.children, std::move(whole)};
}

/// The head of an NPY file of version 1, and what its numbers are.
struct Head {
  size_t size = 0;
  bool wide = false;  // float64, else float32
};
Result<Head> ReadHead(std::string_view chunk) {
  if (chunk.size() < 10 || !chunk.starts_with("\x93NUMPY\x01"))
    return Fail(Code::kInvalidArgument, "an array is no NPY file of version 1");
  Head head;
  head.size = 10 + static_cast<uint8_t>(chunk[8]) + (size_t{static_cast<uint8_t>(chunk[9])} << 8);
  const std::string_view text = chunk.substr(0, std::min(head.size, chunk.size()));
  head.wide = text.find("<f8") != std::string_view::npos;
  if (head.size > chunk.size() || (!head.wide && text.find("<f4") == std::string_view::npos))
    return Fail(Code::kInvalidArgument, "an array is neither float32 nor float64");
  return head;
}

/// A trainer has its model in float32, also where the strategy has made float64 of it.
std::string Narrow(const std::string& file, const Head& head) {
  std::string narrow = file.substr(0, head.size);
  narrow[narrow.find("<f8") + 2] = '4';
  const size_t count = (file.size() - head.size) / sizeof(double);
  narrow.resize(head.size + count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    double value = 0;
    std::memcpy(&value, file.data() + head.size + i * sizeof value, sizeof value);
    const auto less = static_cast<float>(value);
    std::memcpy(narrow.data() + head.size + i * sizeof less, &less, sizeof less);
  }
  return narrow;
}

Status AddArray(const Object& array, std::vector<std::string> chunks, Model& model) {
  if (chunks.empty()) return Fail(Code::kInvalidArgument, "an array has no chunks");
  Model::Array made{array.id, array.body, {}};
  UMBEL_ASSIGN(const Head head, ReadHead(chunks[0]));
  if (head.wide) {
    std::string file;
    for (const std::string& chunk : chunks) file += chunk;
    file = Narrow(file, head);
    chunks.clear();
    for (size_t at = 0; at < file.size(); at += kChunkSize)
      chunks.push_back(file.substr(at, kChunkSize));
    nlohmann::json body = nlohmann::json::parse(array.body);
    body["dtype"] = "float32";
    body["arraychunk_ids"] = nlohmann::json::array();
    for (size_t i = 0; i < chunks.size(); ++i) body["arraychunk_ids"].push_back(i);
    made.body = body.dump();
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    made.chunks.push_back(model.chunks.size());
    model.chunks.push_back({std::move(chunks[i]), i == 0 ? head.size : 0});
  }
  model.arrays.push_back(std::move(made));
  return {};
}

Result<Model> MakeModel(std::unordered_map<ObjectId, Object>& objects, const ObjectId& message) {
  Model model;
  const Object& dictionary = objects.at(objects.at(message).children.at(0));
  for (const ObjectId& record_id : dictionary.children) {
    const Object& record = objects.at(record_id);
    if (record.type != ObjectType::kArrayRecord) continue;
    model.names = record.body;
    for (const ObjectId& array_id : record.children) {
      const Object& array = objects.at(array_id);
      std::vector<std::string> chunks;
      for (const ObjectId& chunk_id : array.children)
        chunks.push_back(std::move(objects.at(chunk_id).body));
      UMBEL_TRY(AddArray(array, std::move(chunks), model));
    }
  }
  return model;
}

/// How a node's numbers come from the model's.
struct Change {
  float add = 0;
  bool hostile = false;  // any finite number instead
};

uint64_t Mix(uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

/// The chunk's object of a reply.
std::string MakeChunk(const Model& model, size_t index, const Change& change) {
  const Model::Chunk& chunk = model.chunks[index];
  std::string whole = fmt::format("ArrayChunk  {}", chunk.bytes.size());
  whole.push_back('\0');
  const size_t begin = whole.size() + chunk.skip;
  whole += chunk.bytes;
  char* const values = whole.data() + begin;
  const size_t count = (whole.size() - begin) / sizeof(float);
  if (change.hostile) {
    for (size_t i = 0; i < count; ++i) {
      auto bits = static_cast<uint32_t>(Mix(index << 32 | i));
      if ((bits & 0x7f800000) == 0x7f800000) bits ^= 0x40000000;
      std::memcpy(values + i * sizeof bits, &bits, sizeof bits);
    }
    return whole;
  }
  for (size_t i = 0; i < count; ++i) {
    float value = 0;
    std::memcpy(&value, values + i * sizeof value, sizeof value);
    value += change.add;
    std::memcpy(values + i * sizeof value, &value, sizeof value);
  }
  return whole;
}

std::vector<ObjectId> HashChunks(const Model& model, const Change& change) {
  std::vector<ObjectId> ids(model.chunks.size());
  for (size_t at = 0; at < ids.size(); at += kTogether) {
    const size_t count = std::min(kTogether, ids.size() - at);
    std::vector<std::string> wholes;
    for (size_t i = 0; i < count; ++i) wholes.push_back(MakeChunk(model, at + i, change));
    const std::vector<std::string_view> views(wholes.begin(), wholes.end());
    tensor::Sha256Many(views, std::span(ids).subspan(at, count));
  }
  return ids;
}

Part MetricsPart(int64_t examples) {
  pb::MetricRecord metrics;
  const auto add = [&](const char* key) {
    pb::MetricRecord::Item* const item = metrics.add_items();
    item->set_key(key);
    return item->mutable_value();
  };
  add("loss")->set_double_(1.0 / static_cast<double>(examples));
  add("num-examples")->set_sint64(examples);
  return MakePart(ObjectType::kMetricRecord, {}, Deterministic(metrics));
}

/// A reply but for its chunks.
Parcel MakeReply(const Envelope& envelope, const Model& model, const std::vector<ObjectId>& ids,
                 Part metrics) {
  std::vector<Part> arrays;
  std::string names = model.names;
  for (const Model::Array& array : model.arrays) {
    std::vector<Part> chunks;
    for (const size_t index : array.chunks) {
      Part& chunk = chunks.emplace_back();
      chunk.blob.id = ids[index];
      chunk.tree.set_object_id(ids[index].Hex());
    }
    arrays.push_back(MakePart(ObjectType::kArray, chunks, array.body));
    const std::string before = array.id.Hex();
    names.replace(names.find(before), before.size(), arrays.back().blob.id.Hex());
  }
  std::vector<Part> records;
  records.push_back(MakePart(ObjectType::kArrayRecord, arrays, names));
  records.push_back(std::move(metrics));
  std::vector<Blob> lower;
  for (Part& array : arrays) lower.push_back(std::move(array.blob));
  return Wrap(envelope, std::move(lower), std::move(records));
}

/// The times of one phase, over all nodes; seconds since 1970.
struct PhaseTimes {
  std::string type;
  double first_asked = std::numeric_limits<double>::infinity();  // a node has the instruction
  double last_pulled = 0;                                        // with all its objects
  double first_sent = std::numeric_limits<double>::infinity();   // a node begins to send
  double last_byte = 0;       // of the last object, handed to the system
  double last_stored = 0;     // the last object is answered
  uint64_t bytes_pulled = 0;  // of objects
  uint64_t bytes_pushed = 0;
  uint64_t array_bytes = 0;  // of all replies' arrays, without heads
  size_t nodes = 0;
};

class Trainers {
 public:
  Trainers(const TrainOptions& options, std::vector<Member> members)
      : options_(options),
        members_(std::move(members)),
        phases_(options.phases),
        keeper_([this](const std::stop_token& stop) { KeepAlive(stop); }) {}

  Status Run() {
    const size_t lanes = std::min(options_.threads, members_.size());
    return RunParallel(lanes,
                       [&](size_t lane) -> Status {
                         for (size_t phase = 0; phase < options_.phases; ++phase)
                           for (size_t i = lane; i < members_.size(); i += lanes) {
                             const Status done = Serve(i, phase);
                             if (!done.ok())
                               return Fail(done.error().code,
                                           fmt::format("node {}, phase {}: {}", i, phase,
                                                       done.error().message));
                           }
                         return {};
                       })
        .status;
  }

  nlohmann::json Times() const {
    nlohmann::json out = nlohmann::json::array();
    for (const PhaseTimes& phase : phases_)
      out.push_back({{"type", phase.type},
                     {"nodes", phase.nodes},
                     {"first_asked", phase.first_asked},
                     {"last_pulled", phase.last_pulled},
                     {"first_sent", phase.first_sent},
                     {"last_byte", phase.last_byte},
                     {"last_stored", phase.last_stored},
                     {"bytes_pulled", phase.bytes_pulled},
                     {"bytes_pushed", phase.bytes_pushed},
                     {"array_bytes", phase.array_bytes}});
    return out;
  }

 private:
  using Shared = std::shared_future<Result<std::shared_ptr<const Model>>>;

  /// One instruction of one node, from waiting for it to its answer.
  Status Serve(size_t index, size_t phase) {
    const Member& member = members_[index];
    FlowerClient node = FlowerClient::Node(options_.server, *member.identity, member.node_id, 0);
    UMBEL_ASSIGN(const pb::FleetPullMessagesResponse pulled, Await(node));
    const double asked = NowSeconds();
    const pb::Message& instruction = pulled.messages_list(0);
    const uint64_t run_id = instruction.metadata().run_id();
    node = FlowerClient::Node(options_.server, *member.identity, member.node_id, run_id);
    uint64_t bytes = 0;
    UMBEL_ASSIGN(const auto model, Pull(node, pulled.message_object_trees(0), &bytes));
    pb::ConfirmMessageReceivedRequest confirm;
    confirm.mutable_node()->set_node_id(member.node_id);
    confirm.set_run_id(run_id);
    confirm.set_message_object_id(instruction.metadata().message_id());
    UMBEL_TRY(node.Call("confirm-message-received", confirm));
    {
      const std::lock_guard lock(mutex_);
      PhaseTimes& times = phases_[phase];
      times.type = instruction.metadata().message_type();
      times.first_asked = std::min(times.first_asked, asked);
      times.last_pulled = std::max(times.last_pulled, NowSeconds());
      times.bytes_pulled += bytes;
    }
    return Answer(node, instruction, *model, index, phase);
  }

  Result<pb::FleetPullMessagesResponse> Await(FlowerClient& node) const {
    pb::FleetPullMessagesRequest pull;
    pull.mutable_node()->set_node_id(node.node_id());
    const double deadline = NowSeconds() + options_.patience;
    while (NowSeconds() < deadline) {
      UMBEL_ASSIGN(auto pulled, node.Ask<pb::FleetPullMessagesResponse>("pull-messages", pull));
      if (pulled.messages_list_size() > 0) return pulled;
      std::this_thread::sleep_for(kPollPause);
    }
    return Fail(Code::kDeadlineExceeded, "no instruction came");
  }

  /// Every object comes over the wire; the first node of a phase keeps them for all.
  Result<std::shared_ptr<const Model>> Pull(FlowerClient& node, const pb::ObjectTree& tree,
                                            uint64_t* bytes) {
    UMBEL_ASSIGN(const ObjectId message, ObjectId::FromHex(tree.object_id()));
    std::promise<Result<std::shared_ptr<const Model>>> promise;
    bool keeps = false;
    Shared shared;
    {
      // The message itself differs from node to node; what it holds does not.
      const std::lock_guard lock(mutex_);
      keeps = tree.children(0).object_id() != content_;
      if (keeps) {
        content_ = tree.children(0).object_id();
        model_ = promise.get_future().share();
      }
      shared = model_;
    }
    std::unordered_map<ObjectId, Object> objects;
    const auto pull_all = [&]() -> Status {
      for (const ObjectId& id : IdsOf(tree)) {
        std::string whole;
        UMBEL_ASSIGN(const uint64_t size, node.PullObject(id, keeps ? &whole : nullptr));
        *bytes += size;
        if (!keeps || objects.contains(id)) continue;
        UMBEL_ASSIGN(Object object, Parse(id, std::move(whole)));
        objects.emplace(id, std::move(object));
      }
      return {};
    };
    const Status pulled = pull_all();
    if (keeps) {
      auto made = pulled.ok() ? MakeModel(objects, message) : Result<Model>(Fail(pulled.error()));
      promise.set_value(made.ok()
                            ? Result<std::shared_ptr<const Model>>(
                                  std::make_shared<const Model>(*std::move(made)))
                            : Result<std::shared_ptr<const Model>>(Fail(std::move(made).error())));
    }
    UMBEL_TRY(pulled);
    return shared.get();
  }

  Status Answer(FlowerClient& node, const pb::Message& instruction, const Model& model,
                size_t index, size_t phase) {
    const pb::Metadata& asked = instruction.metadata();
    const double now = NowSeconds();
    const Envelope envelope{asked.run_id(),
                            asked.dst_node_id(),
                            1,
                            asked.message_id(),
                            now,
                            asked.created_at() + asked.ttl() - now,
                            asked.message_type()};
    const bool trains = asked.message_type() == "train";
    const Change change{
        static_cast<float>(1 + index + members_.size() * phase) / 1024,
        options_.hostile && index == 0,
    };
    std::vector<ObjectId> ids;
    if (trains) ids = HashChunks(model, change);
    Part metrics = MetricsPart(static_cast<int64_t>(1 + index % 7));
    std::vector<Part> alone;
    if (!trains) alone.push_back(std::move(metrics));
    const Parcel parcel = trains ? MakeReply(envelope, model, ids, std::move(metrics))
                                 : Wrap(envelope, {}, std::move(alone));
    pb::FleetPushMessagesRequest push;
    push.mutable_node()->set_node_id(node.node_id());
    *push.add_messages_list() = parcel.message;
    *push.add_message_object_trees() = parcel.tree;
    const double first_sent = NowSeconds();
    UMBEL_ASSIGN(const auto pushed, node.Ask<pb::FleetPushMessagesResponse>("push-messages", push));
    const size_t wanted = static_cast<size_t>(pushed.objects_to_push_size());
    if (trains && wanted < ids.size())
      return Fail(
          Code::kFailedPrecondition,
          fmt::format("{} objects of {} and more are wanted: the chunks are not all distinct",
                      wanted, ids.size()));
    uint64_t bytes = 0;
    const auto send = [&](const Blob& blob) -> Status {
      bytes += blob.size();
      return node.PushObject(blob, pushed.session_id());
    };
    const auto send_small = [&]() -> Status {
      for (const Blob& blob : parcel.objects)
        if (std::count(pushed.objects_to_push().begin(), pushed.objects_to_push().end(),
                       blob.id.Hex()) > 0)
          UMBEL_TRY(send(blob));
      return {};
    };
    if (!options_.stock) UMBEL_TRY(send_small());
    for (size_t i = 0; i < ids.size(); ++i) {
      Blob blob{ids[i], MakeChunk(model, i, change), {}};
      UMBEL_TRY(send(blob));
    }
    if (options_.stock) UMBEL_TRY(send_small());
    const std::lock_guard lock(mutex_);
    PhaseTimes& times = phases_[phase];
    times.first_sent = std::min(times.first_sent, first_sent);
    times.last_byte = std::max(times.last_byte, node.SentAt());
    times.last_stored = std::max(times.last_stored, NowSeconds());
    times.bytes_pushed += bytes;
    if (trains) times.array_bytes += model.bytes();
    ++times.nodes;
    return {};
  }

  void KeepAlive(const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any pause;
    std::unique_lock lock(mutex);
    while (!pause.wait_for(lock, stop, kHeartbeatEvery, [&] { return stop.stop_requested(); })) {
      for (const Member& member : members_) {
        if (stop.stop_requested()) return;
        FlowerClient node =
            FlowerClient::Node(options_.server, *member.identity, member.node_id, 0);
        pb::SendNodeHeartbeatRequest beat;
        beat.mutable_node()->set_node_id(member.node_id);
        beat.set_heartbeat_interval(kHeartbeatInterval);
        static_cast<void>(node.Call("send-node-heartbeat", beat));
      }
    }
  }

  const TrainOptions options_;
  const std::vector<Member> members_;
  std::mutex mutex_;  // of the three below
  std::string content_;
  Shared model_;
  std::vector<PhaseTimes> phases_;
  std::jthread keeper_;  // last: it ends first
};

}  // namespace

Status RunTrain(const TrainOptions& options) {
  UMBEL_ASSIGN(std::vector<Member> members, JoinNodes(options.server, options.nodes));
  fmt::print("{}\n", nlohmann::json{{"online", members.size()}}.dump());
  std::fflush(stdout);
  Trainers trainers(options, std::move(members));
  UMBEL_TRY(trainers.Run());
  fmt::print("{}\n", nlohmann::json{{"phases", trainers.Times()}}.dump());
  return {};
}

}  // namespace umbel::bench
