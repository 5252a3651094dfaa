#include "superlink/rounds/cyclic.h"

namespace umbel::superlink::rounds {
namespace {

class Cyclic final : public Aggregator {
 public:
  bool AnyLength() const override { return true; }

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    std::vector<Refused> refused;
    for (size_t u = 0; u < updates.size(); ++u) {
      if (!IsByteRow(updates[u].arrays[0].npy)) {
        refused.push_back({u, Outcome::kWrongDtype,
                           fmt::format("array '{}' is {}, not a row of uint8",
                                       updates[u].arrays[0].name, updates[u].arrays[0].npy.dtype)});
      } else if (!reply_ || updates[u].node < reply_->node) {
        reply_ = std::move(updates[u]);
      }
    }
    return refused;
  }

  bool CanSave() const override { return false; }
  Status Save(const std::string&) override { return Cannot(); }
  Status Load(const std::string&) override { return Cannot(); }

  Result<NextModel> Finish(uint32_t) override {
    if (!reply_) return Fail(Code::kFailedPrecondition, "there is no reply");
    const ModelArray& reply = reply_->arrays[0];
    NewArray array{reply.name, "|u1", reply.npy.shape, {}};
    array.fill = [&reply](uint64_t first, uint64_t, std::span<char> out) {
      return reply.file.Read(reply.npy.data_offset + first, out);
    };
    NextModel next;
    next.arrays.push_back(std::move(array));
    return next;
  }

 private:
  static tl::unexpected<Error> Cannot() {
    return Fail(Code::kUnimplemented, "the reply is the next model; there are no sums");
  }

  std::optional<Update> reply_;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeCyclic(const Model& model) {
  if (model.arrays.size() != 1 || !IsByteRow(model.arrays[0].npy))
    return Fail(Code::kInvalidArgument,
                "FedXgbCyclic needs a model of one array: a row of uint8, XGBoost's or empty");
  return std::unique_ptr<Aggregator>(std::make_unique<Cyclic>());
}

}  // namespace umbel::superlink::rounds
