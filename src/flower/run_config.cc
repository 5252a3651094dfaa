#include "flower/run_config.h"

#include <limits>
#include <optional>

#include "flwr/common.pb.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

std::optional<ConfigScalar> ScalarOf(const flwr::proto::Scalar& scalar) {
  switch (scalar.scalar_case()) {
    case flwr::proto::Scalar::kBool:
      return scalar.bool_();
    case flwr::proto::Scalar::kSint64:
      return int64_t{scalar.sint64()};
    case flwr::proto::Scalar::kUint64:
      return uint64_t{scalar.uint64()};
    case flwr::proto::Scalar::kDouble:
      return scalar.double_();
    case flwr::proto::Scalar::kString:
      return scalar.string();
    case flwr::proto::Scalar::kBytes:
    case flwr::proto::Scalar::SCALAR_NOT_SET:
      break;
  }
  return std::nullopt;
}

}  // namespace

Result<ConfigMap> FuseRunConfig(const FabInfo& fab, std::string_view run) {
  flwr::proto::Run message;
  if (run.size() > std::numeric_limits<int>::max() ||
      !message.ParseFromArray(run.data(), static_cast<int>(run.size())))
    return Fail(Code::kInvalidArgument,
                fmt::format("run: {} bytes are no flwr.proto.Run", run.size()));
  ConfigMap fused = fab.config;
  for (const auto& [key, value] : message.override_config()) {
    UMBEL_TRY(CheckOverrideKey(fab, key));
    auto scalar = ScalarOf(value);
    if (!scalar)
      return Fail(Code::kInvalidArgument,
                  fmt::format("run config: the value of {} is not a bool, int, float or string",
                              tensor::Quote(key)));
    fused[key] = *std::move(scalar);
  }
  return fused;
}

}  // namespace umbel::flower
