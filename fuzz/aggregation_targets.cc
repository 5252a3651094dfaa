// What strategies read of replies, and of checkpoints.
#include <string>

#include "aggregation/exact_scalar.h"
#include "aggregation/xgboost.h"
#include "base/result.h"
#include "targets.h"

namespace umbel::fuzz {

void XgbModel(std::string_view bytes) {
  constexpr aggregation::XgbLimits kLimits{.model_bytes = 1 << 20, .values = 10'000, .depth = 20};
  auto bagging = aggregation::XgbBagging::Start(bytes, kLimits);
  if (!bagging.has_value()) {
    UMBEL_CHECK(!bagging.error().message.empty());
    return;
  }
  UMBEL_CHECK(bagging->Finish().value() == bytes);
  if (!bagging->Add(bytes).has_value()) {
    UMBEL_CHECK(bagging->Finish().value() == bytes);  // no trace
    return;
  }
  // What it writes it reads again, unless that has grown beyond a limit.
  const auto written = bagging->Finish();
  if (!written.has_value()) return;
  const auto again = aggregation::XgbBagging::Start(*written, kLimits);
  UMBEL_CHECK(again.has_value() || again.error().code == Code::kResourceExhausted);
}

void ExactSum(std::string_view bytes) {
  auto sum = aggregation::ExactScalar::Parse(bytes);
  if (!sum.has_value()) return;
  UMBEL_CHECK(sum->Serialize() == bytes);
  aggregation::ExactScalar twice = *sum;
  twice.Merge(*sum);
  UMBEL_CHECK(twice.Sign() == sum->Sign());
  twice.Remove(*sum);
  UMBEL_CHECK(twice.Serialize() == bytes);
}

}  // namespace umbel::fuzz
