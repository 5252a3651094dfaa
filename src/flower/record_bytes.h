// MetricRecord and ConfigRecord as protobuf, to the byte as Flower writes them. By hand, since a
// stranger's two bytes would become forty in libprotobuf's memory before anybody could count them.
// Functions; safe from any thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "flower/budget.h"
#include "flower/records.h"
#include "tensor/wire.h"

namespace umbel::flower {

/// errors  kInvalidArgument: a key twice, or text that is not UTF-8.
Result<std::string> EncodeMetrics(const MetricRecord& record);
Result<std::string> EncodeConfig(const ConfigRecord& record);

/// errors  kInvalidArgument: broken wire format, an item without value, a key twice, text that is
///         not UTF-8, a value that is no metric; kResourceExhausted.
Result<MetricRecord> DecodeMetrics(std::string_view wire, Budget& budget);
Result<ConfigRecord> DecodeConfig(std::string_view wire, Budget& budget);

/// nullopt: of a kind that metrics do not have.
std::optional<MetricValue> ToMetric(ConfigValue value);

/// errors  kInvalidArgument: a key twice, or not UTF-8.
Status CheckKeys(std::vector<std::string_view> keys);
template <typename T>
Status CheckKeys(const Ordered<T>& entries) {
  std::vector<std::string_view> keys;
  keys.reserve(entries.size());
  for (const auto& [key, value] : entries) keys.push_back(key);
  return CheckKeys(std::move(keys));
}
/// errors  kInvalidArgument: not UTF-8, which protobuf's strings are.
Status CheckText(std::string_view what, std::string_view text);

/// One field of a message: `bytes` of a length-delimited one, else `number`, a double's bits too.
struct ProtoField {
  uint32_t field = 0;
  tensor::WireType type = tensor::WireType::kVarint;
  std::string_view bytes;
  uint64_t number = 0;

  bool Is(uint32_t wanted, tensor::WireType as = tensor::WireType::kBytes) const {
    return field == wanted && type == as;
  }
};
/// errors  kInvalidArgument: broken wire format; what `take` returns.
Status ForEachField(std::string_view wire, const std::function<Status(const ProtoField&)>& take);

}  // namespace umbel::flower
