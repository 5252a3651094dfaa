#include <fmt/format.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "federation.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

/// What one connection pushes, and the other side then pulls.
struct Share {
  Parcel parcel;
  std::string session_id;

  std::span<const Blob> large(size_t count) const {
    return std::span<const Blob>(parcel.objects).first(count);
  }
  std::span<const Blob> rest(size_t count) const {
    return std::span<const Blob>(parcel.objects).subspan(count);
  }
};

nlohmann::json Figures(const Parallel& phase, size_t objects, size_t bytes) {
  const double total = static_cast<double>(objects) * static_cast<double>(bytes);
  return {{"seconds", phase.seconds}, {"bytes", total}, {"gb_per_s", total / phase.seconds / 1e9}};
}

/// The ServerApp sends every node a message; each node's answer is its share.
Result<std::vector<Share>> PrepareUp(const Federation& federation, size_t count, size_t bytes) {
  std::vector<Share> shares;
  FlowerClient app = federation.App();
  for (size_t i = 0; i < federation.members().size(); ++i) {
    const Parcel instruction = TinyParcel(federation.ToNode(i));
    UMBEL_TRY(federation.PushInstruction(app, instruction));
    FlowerClient node = federation.Node(i);
    UMBEL_ASSIGN(const pb::Message asked, federation.TakeInstruction(node));
    Share share;
    share.parcel = LargeParcel(federation.ToApp(asked), i, static_cast<int>(count), bytes);
    pb::FleetPushMessagesRequest push;
    push.mutable_node()->set_node_id(node.node_id());
    *push.add_messages_list() = share.parcel.message;
    *push.add_message_object_trees() = share.parcel.tree;
    UMBEL_ASSIGN(const auto pushed, node.Ask<pb::FleetPushMessagesResponse>("push-messages", push));
    if (static_cast<size_t>(pushed.objects_to_push_size()) != share.parcel.objects.size())
      return Fail(Code::kFailedPrecondition, "the reply was refused");
    share.session_id = pushed.session_id();
    shares.push_back(std::move(share));
  }
  return shares;
}

Result<std::vector<Share>> PrepareDown(const Federation& federation, size_t count, size_t bytes) {
  std::vector<Share> shares;
  FlowerClient app = federation.App();
  for (size_t i = 0; i < federation.members().size(); ++i) {
    Share share;
    share.parcel = LargeParcel(federation.ToNode(i), i, static_cast<int>(count), bytes);
    pb::RuntimePushMessagesRequest push;
    *push.add_messages_list() = share.parcel.message;
    *push.add_message_object_trees() = share.parcel.tree;
    UMBEL_ASSIGN(const auto pushed,
                 app.Ask<pb::RuntimePushMessagesResponse>("push-messages", push));
    if (static_cast<size_t>(pushed.objects_to_push_size()) != share.parcel.objects.size())
      return Fail(Code::kFailedPrecondition, "the instruction was refused");
    share.session_id = pushed.session_id();
    shares.push_back(std::move(share));
  }
  return shares;
}

}  // namespace

Status RunObjects(const ObjectsOptions& options) {
  const size_t lanes = options.connections;
  const size_t each = options.objects / lanes;
  UMBEL_ASSIGN(const auto federation, Federation::Start(options.server, options.fab, lanes));
  UMBEL_ASSIGN(const std::vector<Share> shares,
               options.up ? PrepareUp(*federation, each, options.object_bytes)
                          : PrepareDown(*federation, each, options.object_bytes));
  const auto client = [&](size_t lane, bool node_side) {
    return node_side ? federation->Node(lane) : federation->App();
  };
  const Parallel push = RunParallel(lanes, [&](size_t lane) -> Status {
    FlowerClient sender = client(lane, options.up);
    for (const Blob& blob : shares[lane].large(each))
      UMBEL_TRY(sender.PushObject(blob, shares[lane].session_id));
    return {};
  });
  UMBEL_TRY(push.status);
  for (size_t lane = 0; lane < lanes; ++lane) {  // now the messages are complete
    FlowerClient sender = client(lane, options.up);
    for (const Blob& blob : shares[lane].rest(each))
      UMBEL_TRY(sender.PushObject(blob, shares[lane].session_id));
  }
  const Parallel pull = RunParallel(lanes, [&](size_t lane) -> Status {
    FlowerClient receiver = client(lane, !options.up);
    for (const Blob& blob : shares[lane].large(each)) {
      UMBEL_ASSIGN(const uint64_t size, receiver.PullObject(blob.id));
      if (size != blob.size()) return Fail(Code::kDataLoss, "an object came back shorter");
    }
    return {};
  });
  UMBEL_TRY(pull.status);
  UMBEL_TRY(federation->Finish());
  const nlohmann::json out = {{"direction", options.up ? "up" : "down"},
                              {"objects", each * lanes},
                              {"object_bytes", options.object_bytes},
                              {"connections", lanes},
                              {"push", Figures(push, each * lanes, options.object_bytes)},
                              {"pull", Figures(pull, each * lanes, options.object_bytes)}};
  fmt::print("{}\n", out.dump());
  return {};
}

}  // namespace umbel::bench
