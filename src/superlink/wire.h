// Between Flower's protobuf messages and our own values.
#pragma once

#include <string>

#include "base/result.h"
#include "superlink/state.h"

namespace flwr::proto {
class Message;
class Run;
class NodeInfo;
class ObjectTree;
}  // namespace flwr::proto

namespace umbel::superlink {

/// errors  kBadProtobuf: the tree is malformed, its root is not the message's id, content and error
///         are both present or both absent, or no metadata is there.
Result<NewMessage> DecodeMessage(const flwr::proto::Message& message,
                                 const flwr::proto::ObjectTree& tree);

/// A run's status, times and identity, as list-runs and get-run show them.
void EncodeRun(const store::RunRow& run, const store::TaskRow& task, flwr::proto::Run* out);

void EncodeNode(const store::NodeRow& node, flwr::proto::NodeInfo* out);

}  // namespace umbel::superlink
