// The messages that ask nodes to train or evaluate, as objects of their run. Functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "flower/records.h"
#include "superlink/rounds/model.h"
#include "superlink/state.h"

namespace umbel::superlink::rounds {

struct InstructionSpec {
  RunId run_id;
  std::string type;  // "train", "evaluate"
  std::string arrayrecord_key;
  std::string configrecord_key;
  flower::ConfigRecord config;
  WallTime now;
  double ttl = 0;  // seconds
};

struct Instructions {
  std::vector<NewMessage> messages;       // one a node, in the order of `nodes`
  std::vector<store::ObjectRow> objects;  // all that the model's record does not have
};

/// One content for all: {arrays, config}, each in a message of its own.
/// errors  kInvalidArgument: a config that Flower's records cannot hold.
Result<Instructions> MakeInstructions(const InstructionSpec& spec, const Model& model,
                                      const std::vector<NodeId>& nodes);

/// A reply of node 1 to a message that was sent to it.
struct OwnReply {
  NewMessage message;
  std::unordered_map<ObjectId, std::string> objects;
};
/// arrays  put first, under "arrays", when not null.
/// errors  kInvalidArgument, as above, or the instruction is no message.
Result<OwnReply> MakeOwnReply(std::string_view instruction, const Model* arrays,
                              const flower::RecordDict& records, WallTime now);
Result<OwnReply> MakeOwnError(std::string_view instruction, int code, std::string reason,
                              WallTime now);

}  // namespace umbel::superlink::rounds
