// One node's reply, judged: is it an update of this model, and with what weight? Functions; the
// objects belong to the caller's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/records.h"
#include "superlink/rounds/machine.h"
#include "superlink/rounds/model.h"

namespace umbel::superlink::rounds {

struct ElementRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

/// A reply that counts.
struct Update {
  NodeId node;
  ObjectId instruction;
  ObjectId reply;  // the message's own id
  double weight = 0;
  uint64_t bytes = 0;  // of its arrays
  flower::MetricRecord metrics;
  std::vector<ModelArray> arrays;  // of training: in the order of the model's
  /// Of each array, what was folded while the reply arrived, in ascending order; empty: nothing.
  std::vector<std::vector<ElementRange>> folded;
};

struct Judged {
  Outcome outcome = Outcome::kAccepted;
  std::string detail;  // why not accepted
  Update update;
};

/// What a reply has to be.
struct Wanted {
  const Model* model = nullptr;  // of training; evaluation needs no arrays
  std::string weighted_by_key;
  bool any_length = false;  // arrays have one dimension, of any size
};

/// The weight among a reply's metrics; nullopt: there is none that counts.
std::optional<double> WeightOf(const flower::MetricRecord& metrics, std::string_view key);

/// message  the reply as it is kept: a serialized flwr.proto.Message.
/// errors   kUnavailable, kDataLoss: our own disk. Whatever is wrong with the reply is an outcome.
Result<Judged> Judge(std::string_view message, const Wanted& wanted, RunObjects& objects);

}  // namespace umbel::superlink::rounds
