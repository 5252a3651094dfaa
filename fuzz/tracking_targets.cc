// What an MLflow server may answer.
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "targets.h"
#include "tracking/answers.h"

namespace umbel::fuzz {
namespace {

using nlohmann::json;

/// Fit to be shown and to be JSON again.
void CheckWords(const Error& error) {
  UMBEL_CHECK(error.message.size() < 4000);
  UMBEL_CHECK(error.message.find_first_of(std::string("\0\n\r\x1b", 4)) == std::string::npos);
  UMBEL_CHECK(!json(error.message).dump().empty());
}

template <typename T>
void Look(const Result<T>& read) {
  if (!read.ok()) {
    UMBEL_CHECK(read.error().code == Code::kDataLoss);
    CheckWords(read.error());
  }
}

/// Each reader, on a value and on what it holds under the names it is looked for.
void ReadAll(const json& value) {
  Look(tracking::ReadExperiment(value));
  Look(tracking::ReadRun(value));
  Look(tracking::ReadModel(value));
  Look(tracking::ReadModelVersion(value));
  const auto metric = tracking::ReadMetric(value);
  Look(metric);
  if (metric.ok()) {
    UMBEL_CHECK(tracking::ToMillis(metric->at) * 1000 == metric->at.time_since_epoch().count());
    UMBEL_CHECK(!tracking::Dump(tracking::NumberJson(metric->value)).empty());
  }
}

}  // namespace

/// The first byte chooses the status.
void MlflowAnswer(std::string_view bytes) {
  if (bytes.empty()) return;
  const int status = 200 + 2 * static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  const Error error = tracking::ErrorOfAnswer("http://a/b", status, bytes);
  CheckWords(error);
  UMBEL_CHECK(error.wire_code == 0 || error.wire_code == status);
  UMBEL_CHECK(!tracking::IsRefusal(error) || (status >= 400 && status < 500));
  const auto answer = tracking::ParseAnswer(bytes);
  Look(answer);
  if (!answer.ok()) return;
  ReadAll(*answer);
  for (const char* field : {"run", "experiment", "model_version"})
    if (const auto one = tracking::ReadObject(*answer, field); one.ok()) ReadAll(**one);
  for (const char* field : {"runs", "metrics", "registered_models", "model_versions"})
    if (const auto list = tracking::ReadList(*answer, field); list.ok())
      for (const json& one : **list) ReadAll(one);
}

}  // namespace umbel::fuzz
