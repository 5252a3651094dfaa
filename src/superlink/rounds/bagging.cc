#include "superlink/rounds/bagging.h"

#include <algorithm>

#include "aggregation/xgboost.h"

namespace umbel::superlink::rounds {
namespace {

Result<std::string> ReadAll(const ModelArray& array) {
  std::string bytes(static_cast<size_t>(array.data_bytes()), '\0');
  UMBEL_TRY(array.file.Read(array.npy.data_offset, bytes));
  return bytes;
}

class Bagging final : public Aggregator {
 public:
  explicit Bagging(const Model& model) : model_(model) {}

  bool AnyLength() const override { return true; }

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    std::vector<Refused> refused;
    for (size_t u = 0; u < updates.size(); ++u) {
      Update& update = updates[u];
      if (!IsByteRow(update.arrays[0].npy)) {
        refused.push_back({u, Outcome::kWrongDtype,
                           fmt::format("array '{}' is {}, not a row of uint8",
                                       update.arrays[0].name, update.arrays[0].npy.dtype)});
        continue;
      }
      // Whether these are trees is asked now: a round is not to fail by one reply.
      UMBEL_ASSIGN(std::string bytes, ReadAll(update.arrays[0]));
      const auto trees = aggregation::XgbBagging::Start(bytes);
      if (!trees.ok()) {
        refused.push_back({u, Outcome::kMalformed, trees.error().message});
        continue;
      }
      replies_.emplace_back(update.node, std::move(bytes));
    }
    return refused;
  }

  bool CanSave() const override { return false; }
  Status Save(const std::string&) override { return Cannot(); }
  Status Load(const std::string&) override { return Cannot(); }

  Result<NextModel> Finish(uint32_t) override {
    std::sort(replies_.begin(), replies_.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    UMBEL_ASSIGN(const std::string current, ReadAll(model_.arrays[0]));
    UMBEL_ASSIGN(auto bagging, aggregation::XgbBagging::Start(current));
    for (const auto& [node, trees] : replies_) UMBEL_TRY(bagging.Add(trees));
    UMBEL_ASSIGN(next_, bagging.Finish());
    NewArray array{model_.arrays[0].name, "|u1", {next_.size()}, {}};
    array.fill = [this](uint64_t first, uint64_t count, std::span<char> out) {
      std::copy_n(next_.data() + first, count, out.data());
      return Status();
    };
    NextModel next;
    next.arrays.push_back(std::move(array));
    return next;
  }

 private:
  static tl::unexpected<Error> Cannot() {
    return Fail(Code::kUnimplemented, "trees are kept as they came, not as sums");
  }

  const Model& model_;
  std::vector<std::pair<NodeId, std::string>> replies_;
  std::string next_;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeBagging(const Model& model) {
  if (model.arrays.size() != 1 || !IsByteRow(model.arrays[0].npy))
    return Fail(
        Code::kInvalidArgument,
        "FedXgbBagging needs a model of one array: a row of uint8, XGBoost's JSON or empty");
  return std::unique_ptr<Aggregator>(std::make_unique<Bagging>(model));
}

}  // namespace umbel::superlink::rounds
