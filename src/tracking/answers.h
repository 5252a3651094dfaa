// Reads what an MLflow server answers. The bytes are a peer's: each reader says which field is
// wrong. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "tracking/mlflow.h"

namespace umbel::tracking {

/// errors  kDataLoss: not a JSON object, or nested deeper than anything of MLflow's.
Result<nlohmann::json> ParseAnswer(std::string_view body);

/// The Error for an answer with a status other than 200: code and wire_code as mlflow.h says.
Error ErrorOfAnswer(const std::string& url, int status, std::string_view body);

/// All from the object that holds the fields. Numbers may come as text, as protobuf writes 64 bits.
/// errors  kDataLoss: names the field.
Result<std::string> ReadText(const nlohmann::json& from, const char* field);
/// "" when absent.
Result<std::string> ReadTextOr(const nlohmann::json& from, const char* field);
Result<const nlohmann::json*> ReadObject(const nlohmann::json& from, const char* field);
/// An absent one is empty, as protobuf has it.
Result<const nlohmann::json*> ReadList(const nlohmann::json& from, const char* field);
Result<Experiment> ReadExperiment(const nlohmann::json& from);
Result<Metric> ReadMetric(const nlohmann::json& from);
Result<Run> ReadRun(const nlohmann::json& from);
Result<RegisteredModel> ReadModel(const nlohmann::json& from);
Result<ModelVersion> ReadModelVersion(const nlohmann::json& from);

/// A double as MLflow takes it: JSON has no word for NaN and the infinities, protobuf has.
nlohmann::json NumberJson(double value);
/// Milliseconds since 1970, rounded down.
int64_t ToMillis(WallTime time);
/// As text; bytes that are not UTF-8 are replaced.
std::string Dump(const nlohmann::json& json);

}  // namespace umbel::tracking
