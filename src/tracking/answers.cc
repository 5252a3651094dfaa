#include "tracking/answers.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace umbel::tracking {
namespace {

using Json = nlohmann::json;

constexpr size_t kDepthMax = 32;
constexpr size_t kWordsMax = 400;
constexpr int64_t kMillisMax = std::numeric_limits<int64_t>::max() / 1000;
const Json kEmptyList = Json::array();

size_t DepthOf(std::string_view text) {
  size_t depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

/// Fit for a line of a log or a terminal, whatever bytes a peer has sent.
std::string Words(std::string_view text) {
  size_t size = std::min(text.size(), kWordsMax);
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80)
    --size;
  const Json valid =
      Json::parse(Json(text.substr(0, size)).dump(-1, ' ', false, Json::error_handler_t::replace),
                  nullptr, false);
  std::string out = valid.is_string() ? valid.get<std::string>() : std::string();
  for (char& c : out)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
  if (text.size() > size) out += "…";
  return out;
}

tl::unexpected<Error> Wrong(const char* field, const char* what) {
  return Fail(Code::kDataLoss, fmt::format("'{}' is not {}", field, what));
}

Result<int64_t> ReadInteger(const Json& from, const char* field) {
  const auto found = from.find(field);
  if (found == from.end()) return 0;
  if (found->is_number_unsigned() &&
      found->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return Wrong(field, "a number of 64 bits");
  if (found->is_number_integer()) return found->get<int64_t>();
  if (!found->is_string()) return Wrong(field, "a whole number");
  const std::string& text = found->get_ref<const std::string&>();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return Wrong(field, "a whole number");
  return value;
}

Result<WallTime> ReadMillis(const Json& from, const char* field) {
  UMBEL_ASSIGN(const int64_t millis, ReadInteger(from, field));
  if (millis < -kMillisMax || millis > kMillisMax) return Wrong(field, "a time");
  return WallTime(std::chrono::milliseconds(millis));
}

Result<double> ReadNumber(const Json& from, const char* field) {
  const auto found = from.find(field);
  if (found == from.end()) return 0.0;
  if (found->is_number()) return found->get<double>();
  if (found->is_string()) {
    const std::string& text = found->get_ref<const std::string&>();
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  }
  return Wrong(field, "a number");
}

/// A list of {"key", "value"}.
Result<std::map<std::string, std::string>> ReadPairs(const Json& from, const char* field) {
  UMBEL_ASSIGN(const Json* list, ReadList(from, field));
  std::map<std::string, std::string> pairs;
  for (const Json& one : *list) {
    UMBEL_ASSIGN(std::string key, ReadText(one, "key"));
    UMBEL_ASSIGN(std::string value, ReadTextOr(one, "value"));
    pairs[std::move(key)] = std::move(value);
  }
  return pairs;
}

Code CodeOfWord(std::string_view word, int status) {
  if (status >= 500) return Code::kUnavailable;
  if (word == "RESOURCE_DOES_NOT_EXIST" || word == "NOT_FOUND") return Code::kNotFound;
  if (word == "RESOURCE_ALREADY_EXISTS" || word == "ALREADY_EXISTS") return Code::kAlreadyExists;
  if (word == "ENDPOINT_NOT_FOUND") return Code::kUnimplemented;
  if (status == 400 || status == 422) return Code::kInvalidArgument;
  if (status == 401) return Code::kUnauthenticated;
  if (status == 403) return Code::kPermissionDenied;
  if (status == 429) return Code::kResourceExhausted;
  return Code::kUnavailable;
}

Code CodeOfStatus(int status) {
  if (status == 401) return Code::kUnauthenticated;
  if (status == 403) return Code::kPermissionDenied;
  if (status == 404) return Code::kUnimplemented;
  if (status == 429) return Code::kResourceExhausted;
  return status >= 200 && status < 400 ? Code::kDataLoss : Code::kUnavailable;
}

}  // namespace

bool IsRefusal(const Error& error) {
  return error.wire_code >= 400 && error.wire_code < 500 &&
         (error.code == Code::kInvalidArgument || error.code == Code::kNotFound ||
          error.code == Code::kAlreadyExists);
}

Result<Json> ParseAnswer(std::string_view body) {
  if (DepthOf(body) > kDepthMax)
    return Fail(Code::kDataLoss, fmt::format("JSON of more than {} levels", kDepthMax));
  Json json = Json::parse(body, nullptr, false);
  if (!json.is_object())
    return Fail(Code::kDataLoss, fmt::format("not a JSON object: {}", Words(body.substr(0, 100))));
  return json;
}

Error ErrorOfAnswer(const std::string& url, int status, std::string_view body) {
  const auto json = ParseAnswer(body);
  if (json.ok()) {
    const auto word = ReadText(*json, "error_code");
    const auto text = ReadTextOr(*json, "message");
    if (word.ok() && text.ok())
      return {CodeOfWord(*word, status),
              fmt::format("{}: {} {}: {}", url, status, Words(*word), Words(*text)), status};
  }
  return {CodeOfStatus(status),
          fmt::format("{}: {}, and not MLflow's words: {}", url, status, Words(body))};
}

Result<std::string> ReadText(const Json& from, const char* field) {
  if (!from.is_object()) return Wrong(field, "there: what should hold it is no object");
  const auto found = from.find(field);
  if (found == from.end() || !found->is_string()) return Wrong(field, "a text");
  return found->get<std::string>();
}

Result<std::string> ReadTextOr(const Json& from, const char* field) {
  if (from.is_object() && !from.contains(field)) return std::string();
  return ReadText(from, field);
}

Result<const Json*> ReadObject(const Json& from, const char* field) {
  const auto found = from.find(field);
  if (found == from.end() || !found->is_object()) return Wrong(field, "an object");
  return &*found;
}

Result<const Json*> ReadList(const Json& from, const char* field) {
  if (!from.is_object()) return Wrong(field, "there: what should hold it is no object");
  const auto found = from.find(field);
  if (found == from.end()) return &kEmptyList;
  if (!found->is_array()) return Wrong(field, "a list");
  return &*found;
}

Result<Experiment> ReadExperiment(const Json& from) {
  Experiment out;
  UMBEL_ASSIGN(out.id, ReadText(from, "experiment_id"));
  UMBEL_ASSIGN(out.name, ReadText(from, "name"));
  UMBEL_ASSIGN(const std::string stage, ReadTextOr(from, "lifecycle_stage"));
  out.deleted = stage == "deleted";
  return out;
}

Result<Metric> ReadMetric(const Json& from) {
  Metric out;
  UMBEL_ASSIGN(out.key, ReadText(from, "key"));
  UMBEL_ASSIGN(out.value, ReadNumber(from, "value"));
  UMBEL_ASSIGN(out.at, ReadMillis(from, "timestamp"));
  UMBEL_ASSIGN(out.step, ReadInteger(from, "step"));
  return out;
}

Result<Run> ReadRun(const Json& from) {
  Run out;
  UMBEL_ASSIGN(const Json* info, ReadObject(from, "info"));
  UMBEL_ASSIGN(out.id, ReadText(*info, "run_id"));
  UMBEL_ASSIGN(out.experiment_id, ReadText(*info, "experiment_id"));
  UMBEL_ASSIGN(out.name, ReadTextOr(*info, "run_name"));
  UMBEL_ASSIGN(out.status, ReadTextOr(*info, "status"));
  UMBEL_ASSIGN(out.started_at, ReadMillis(*info, "start_time"));
  UMBEL_ASSIGN(const WallTime end, ReadMillis(*info, "end_time"));
  if (end != WallTime{}) out.ended_at = end;
  UMBEL_ASSIGN(const std::string stage, ReadTextOr(*info, "lifecycle_stage"));
  out.deleted = stage == "deleted";
  if (!from.contains("data")) return out;
  UMBEL_ASSIGN(const Json* data, ReadObject(from, "data"));
  UMBEL_ASSIGN(out.params, ReadPairs(*data, "params"));
  UMBEL_ASSIGN(out.tags, ReadPairs(*data, "tags"));
  UMBEL_ASSIGN(const Json* metrics, ReadList(*data, "metrics"));
  for (const Json& one : *metrics) {
    UMBEL_ASSIGN(Metric metric, ReadMetric(one));
    out.metrics.push_back(std::move(metric));
  }
  return out;
}

Result<RegisteredModel> ReadModel(const Json& from) {
  RegisteredModel out;
  UMBEL_ASSIGN(out.name, ReadText(from, "name"));
  UMBEL_ASSIGN(const Json* aliases, ReadList(from, "aliases"));
  for (const Json& one : *aliases) {
    UMBEL_ASSIGN(std::string alias, ReadText(one, "alias"));
    UMBEL_ASSIGN(out.aliases[std::move(alias)], ReadInteger(one, "version"));
  }
  return out;
}

Result<ModelVersion> ReadModelVersion(const Json& from) {
  ModelVersion out;
  UMBEL_ASSIGN(out.name, ReadText(from, "name"));
  UMBEL_ASSIGN(out.version, ReadInteger(from, "version"));
  UMBEL_ASSIGN(out.run_id, ReadTextOr(from, "run_id"));
  UMBEL_ASSIGN(out.source, ReadTextOr(from, "source"));
  UMBEL_ASSIGN(out.status, ReadTextOr(from, "status"));
  UMBEL_ASSIGN(out.created_at, ReadMillis(from, "creation_timestamp"));
  return out;
}

Json NumberJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

int64_t ToMillis(WallTime time) {
  return std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace umbel::tracking
