// Federated XGBoost as Flower has it: an array "0" of uint8, which is XGBoost's model as JSON.
// Bagging appends the trees of each reply to the global model; cyclic passes the model from node to
// node. An object belongs to one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

struct XgbLimits {
  size_t model_bytes = size_t{256} << 20;  // of one model's JSON
  size_t values = 16'000'000;              // and keys; parsed, each takes up to 100 bytes of memory
  size_t depth = 64;                       // XGBoost's own models have 7
};

/// FedXgbBagging. Trees are in the order of the replies: let that be the order of their nodes' ids.
class XgbBagging {
 public:
  /// model   the global model, "" before the first round.
  /// errors  kInvalidArgument: not JSON, or not a model of trees, with what is missing;
  ///         kResourceExhausted: above a limit.
  static Result<XgbBagging> Start(std::string_view model, XgbLimits limits = {});
  ~XgbBagging();
  XgbBagging(XgbBagging&&) noexcept;
  XgbBagging& operator=(XgbBagging&&) noexcept;

  /// Appends the first num_parallel_tree trees of a reply; while there is no global model, the
  /// reply becomes it, bytes unchanged. errors  Start's, and kInvalidArgument: fewer trees than it
  /// says; the model is then as before.
  Status Add(std::string_view reply);

  /// The new global model; as JSON the same as Flower's, while spaces and the spelling of numbers
  /// may differ. errors  kResourceExhausted: it is above the limit.
  Result<std::string> Finish() const;

 private:
  struct Model;
  explicit XgbBagging(XgbLimits limits);

  XgbLimits limits_;
  std::string verbatim_;  // the model while nothing has been appended
  std::unique_ptr<Model> model_;
};

/// FedXgbCyclic's turns: nodes take their place in the order in which they were first seen, and
/// each round one of them trains, in that order. The next global model is its reply's array,
/// unchanged.
class CyclicTurns {
 public:
  CyclicTurns() = default;
  /// seen  Seen() of before a restart.
  explicit CyclicTurns(std::vector<uint64_t> seen) : seen_(std::move(seen)) {}

  /// Flower calls this for training and for evaluation, with the nodes it sampled for each.
  ///
  /// nodes   distinct, at least one; those not seen before are appended in this order.
  /// round   from 1.
  /// cost    O(nodes * seen).
  uint64_t Pick(std::span<const uint64_t> nodes, uint64_t round);
  const std::vector<uint64_t>& Seen() const { return seen_; }

 private:
  std::vector<uint64_t> seen_;
};

}  // namespace umbel::aggregation
