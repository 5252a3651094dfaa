#include "tracking/mlflow.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <charconv>

#include "http/client.h"
#include "tracking/answers.h"

namespace umbel::tracking {
namespace {

using Json = nlohmann::json;
using Steady = std::chrono::steady_clock;

constexpr size_t kAnswerMax = size_t{8} << 20;
constexpr size_t kPageSize = 1000;
constexpr size_t kPagesMax = 1000;
constexpr std::chrono::milliseconds kConnectMax{10000};

struct Address {
  http::ClientOptions options;
  std::string prefix;  // "/a/b", without a slash at its end
};

tl::unexpected<Error> BadUrl(const std::string& url, std::string_view why) {
  // What may be a password is not repeated.
  const size_t at = url.rfind('@');
  return Fail(Code::kInvalidArgument,
              fmt::format("the address '{}' of an MLflow server {}",
                          at == std::string::npos ? url : "…" + url.substr(at), why));
}

Result<Address> ReadUrl(const std::string& url) {
  Address out;
  std::string_view rest = url;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
    out.options.port = 80;
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    out.options.port = 443;
    out.options.tls = true;
  } else {
    return BadUrl(url, "does not begin with http:// or https://");
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  out.prefix = rest.substr(slash);
  std::string_view host = rest.substr(0, slash);
  if (rest.find_first_of("@?#") != std::string_view::npos)
    return BadUrl(url, "may have no user, query or fragment");
  if (std::any_of(url.begin(), url.end(), [](char c) { return c <= ' ' || c == '\x7f'; }))
    return BadUrl(url, "holds a character that no address has");
  while (out.prefix.ends_with('/')) out.prefix.pop_back();
  const size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos) {
    const std::string_view digits = host.substr(colon + 1);
    unsigned port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port == 0 || port > 65535)
      return BadUrl(url, "has no port of 1 to 65535 behind its ':'");
    out.options.port = static_cast<uint16_t>(port);
    host = host.substr(0, colon);
  }
  if (host.empty()) return BadUrl(url, "names no host");
  out.options.host = host;
  return out;
}

std::string Encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

/// A text in a filter of MLflow's, which knows no escapes: text holds at most one kind of quote.
Result<std::string> Quoted(const std::string& text) {
  if (text.find('\'') == std::string::npos) return "'" + text + "'";
  if (text.find('"') == std::string::npos) return '"' + text + '"';
  return Fail(Code::kInvalidArgument,
              fmt::format("MLflow cannot search for a text with both quotes: {}", text));
}

Json PairsJson(const auto& pairs) {
  Json list = Json::array();
  for (const auto& [key, value] : pairs) list.push_back({{"key", key}, {"value", value}});
  return list;
}

class ClientImpl final : public MlflowClient {
 public:
  ClientImpl(std::string url, Address address, Options options)
      : url_(std::move(url)), address_(std::move(address)), options_(std::move(options)) {
    http::ClientOptions& to = address_.options;
    to.connections_max = 1;
    to.connect_timeout = Seconds(std::min(options_.timeout, kConnectMax));
  }
  ~ClientImpl() override {
    kept_.reset();
    fresh_.reset();
    context_.restart();
    context_.poll();  // what was cancelled goes before the context does
  }

  Status Connect() {
    kept_.reset();
    fresh_.reset();
    UMBEL_ASSIGN(kept_, http::Client::Make(context_, address_.options));
    http::ClientOptions never_kept = address_.options;
    never_kept.idle_max = std::chrono::seconds(-1);
    UMBEL_ASSIGN(fresh_, http::Client::Make(context_, never_kept));
    return {};
  }

  Result<Experiment> ExperimentByName(const std::string& name) override {
    UMBEL_ASSIGN(const Json answer, Get("experiments/get-by-name?experiment_name=" + Encode(name)));
    return Read("experiments/get-by-name", answer, [](const Json& json) -> Result<Experiment> {
      UMBEL_ASSIGN(const Json* experiment, ReadObject(json, "experiment"));
      return ReadExperiment(*experiment);
    });
  }

  Result<std::string> CreateExperiment(const std::string& name) override {
    UMBEL_ASSIGN(const Json answer, Post("experiments/create", {{"name", name}}));
    return Read("experiments/create", answer,
                [](const Json& json) { return ReadText(json, "experiment_id"); });
  }

  Status RestoreExperiment(const std::string& id) override {
    UMBEL_TRY(Post("experiments/restore", {{"experiment_id", id}}));
    return {};
  }

  Result<std::string> EnsureExperiment(const std::string& name) override {
    auto found = ExperimentByName(name);
    if (!found.ok() && IsRefusal(found.error()) && found.error().code == Code::kNotFound) {
      auto made = CreateExperiment(name);
      if (made.ok() || made.error().code != Code::kAlreadyExists) return made;
      found = ExperimentByName(name);  // somebody else was faster
    }
    if (!found.ok()) return Fail(std::move(found).error());
    if (found->deleted) UMBEL_TRY(RestoreExperiment(found->id));
    return std::move(found->id);
  }

  Result<std::string> CreateRun(const NewRun& run) override {
    const Json body = {{"experiment_id", run.experiment_id},
                       {"run_name", run.name},
                       {"user_id", options_.user},
                       {"start_time", ToMillis(run.started_at)},
                       {"tags", PairsJson(run.tags)}};
    UMBEL_ASSIGN(const Json answer, Call(*fresh_, "POST", "runs/create", Dump(body)));
    return Read("runs/create", answer, [](const Json& json) -> Result<std::string> {
      UMBEL_ASSIGN(const Json* made, ReadObject(json, "run"));
      UMBEL_ASSIGN(Run read, ReadRun(*made));
      return std::move(read.id);
    });
  }

  Result<std::vector<Run>> RunsByTag(const std::string& experiment_id, const std::string& tag,
                                     const std::string& value) override {
    UMBEL_ASSIGN(const std::string quoted, Quoted(value));
    const Json body = {{"experiment_ids", Json::array({experiment_id})},
                       {"filter", fmt::format("tags.`{}` = {}", tag, quoted)},
                       {"run_view_type", "ACTIVE_ONLY"},
                       {"max_results", 100}};
    UMBEL_ASSIGN(const Json answer, Post("runs/search", body));
    auto runs = ReadEach<Run>("runs/search", answer, "runs", ReadRun);
    if (runs.ok())
      std::sort(runs->begin(), runs->end(), [](const Run& a, const Run& b) { return a.id < b.id; });
    return runs;
  }

  Result<Run> GetRun(const std::string& run_id) override {
    UMBEL_ASSIGN(const Json answer, Get("runs/get?run_id=" + Encode(run_id)));
    return Read("runs/get", answer, [](const Json& json) -> Result<Run> {
      UMBEL_ASSIGN(const Json* run, ReadObject(json, "run"));
      return ReadRun(*run);
    });
  }

  Status UpdateRun(const std::string& run_id, const std::string& status,
                   WallTime ended_at) override {
    UMBEL_TRY(Post("runs/update",
                   {{"run_id", run_id}, {"status", status}, {"end_time", ToMillis(ended_at)}}));
    return {};
  }

  Status DeleteRun(const std::string& run_id) override {
    UMBEL_TRY(Post("runs/delete", {{"run_id", run_id}}));
    return {};
  }

  Status LogBatch(const std::string& run_id, const Batch& batch) override {
    Json metrics = Json::array();
    for (const Metric& metric : batch.metrics)
      metrics.push_back({{"key", metric.key},
                         {"value", NumberJson(metric.value)},
                         {"timestamp", ToMillis(metric.at)},
                         {"step", metric.step}});
    UMBEL_TRY(Post("runs/log-batch", {{"run_id", run_id},
                                      {"metrics", std::move(metrics)},
                                      {"params", PairsJson(batch.params)},
                                      {"tags", PairsJson(batch.tags)}}));
    return {};
  }

  Status SetTag(const std::string& run_id, const std::string& key,
                const std::string& value) override {
    UMBEL_TRY(Post("runs/set-tag", {{"run_id", run_id}, {"key", key}, {"value", value}}));
    return {};
  }

  Result<std::vector<Metric>> History(const std::string& run_id, const std::string& key) override {
    const std::string route =
        fmt::format("metrics/get-history?run_id={}&metric_key={}", Encode(run_id), Encode(key));
    return Pages<Metric>(route, "metrics", ReadMetric);
  }

  Result<std::vector<RegisteredModel>> Models() override {
    return Pages<RegisteredModel>("registered-models/search?", "registered_models", ReadModel);
  }

  Result<ModelVersion> VersionByAlias(const std::string& model, const std::string& alias) override {
    UMBEL_ASSIGN(const Json answer, Get(fmt::format("registered-models/alias?name={}&alias={}",
                                                    Encode(model), Encode(alias))));
    return Read("registered-models/alias", answer, [](const Json& json) -> Result<ModelVersion> {
      UMBEL_ASSIGN(const Json* version, ReadObject(json, "model_version"));
      return ReadModelVersion(*version);
    });
  }

  Result<std::vector<ModelVersion>> VersionsOf(const std::string& model) override {
    UMBEL_ASSIGN(const std::string quoted, Quoted(model));
    return Pages<ModelVersion>("model-versions/search?filter=" + Encode("name=" + quoted),
                               "model_versions", ReadModelVersion);
  }

  void Cancel() override {
    cancelled_ = true;
    boost::asio::post(context_, [] {});  // whoever runs it looks
  }

 private:
  static std::chrono::seconds Seconds(std::chrono::milliseconds time) {
    return std::max(std::chrono::ceil<std::chrono::seconds>(time), std::chrono::seconds(1));
  }
  std::string Named(std::string_view route) const {
    return fmt::format("{}/api/2.0/mlflow/{}", url_, route.substr(0, route.find('?')));
  }

  Result<Json> Get(const std::string& route) { return Call(*kept_, "GET", route, ""); }
  Result<Json> Post(const std::string& route, const Json& body) {
    return Call(*kept_, "POST", route, Dump(body));
  }

  Result<Json> Call(http::Client& client, std::string_view method, const std::string& route,
                    std::string body) {
    http::ClientRequest request(method,
                                fmt::format("{}/api/2.0/mlflow/{}", address_.prefix, route));
    if (method == "POST") request.content_type = "application/json";
    request.body = std::move(body);
    request.timeout = Seconds(options_.timeout);
    auto answer = Send(client, request);
    if (!answer.ok())
      return Fail(answer.error().code, fmt::format("{}: {}", Named(route), answer.error().message));
    if (answer->status != 200)
      return Fail(ErrorOfAnswer(Named(route), answer->status, answer->body));
    auto json = ParseAnswer(answer->body);
    if (!json.ok())
      return Fail(Code::kDataLoss, fmt::format("{}: the answer is not MLflow's: {}", Named(route),
                                               json.error().message));
    return json;
  }

  Result<http::ClientResponse> Send(http::Client& client, const http::ClientRequest& request) {
    std::optional<Result<http::ClientResponse>> answer;
    const auto until = Steady::now() + options_.timeout;
    bool late = false;
    context_.restart();
    boost::asio::co_spawn(context_, client.Send(request, kAnswerMax),
                          [&answer](std::exception_ptr failed, Result<http::ClientResponse> got) {
                            if (failed == nullptr) answer = std::move(got);
                          });
    // The client's own limits are between two bytes; an answer that drips ends here.
    while (!answer) {
      if (!late && context_.run_one_until(until) == 0) {
        if (context_.stopped()) break;
        late = true;
        client.Close();
      } else if (late && context_.run_one() == 0) {
        break;
      }
      if (cancelled_) client.Close();
    }
    if (cancelled_) return Fail(Code::kCancelled, "cancelled");
    if (late) {
      UMBEL_TRY(Connect());
      return Fail(Code::kUnavailable,
                  fmt::format("no whole answer within {} ms", options_.timeout.count()));
    }
    if (!answer) return Fail(Code::kInternal, "the question was not asked");
    return std::move(*answer);
  }

  /// The reader's error with the name of the call in front.
  auto Read(const char* route, const Json& answer, auto&& reader) -> decltype(reader(answer)) {
    auto read = reader(answer);
    if (!read.ok())
      return Fail(Code::kDataLoss, fmt::format("{}: the answer is not MLflow's: {}", Named(route),
                                               read.error().message));
    return read;
  }

  template <typename T>
  Result<std::vector<T>> ReadEach(const char* route, const Json& answer, const char* field,
                                  Result<T> (*reader)(const Json&)) {
    return Read(route, answer, [&](const Json& json) -> Result<std::vector<T>> {
      UMBEL_ASSIGN(const Json* list, ReadList(json, field));
      std::vector<T> out;
      for (const Json& one : *list) {
        UMBEL_ASSIGN(T read, reader(one));
        out.push_back(std::move(read));
      }
      return out;
    });
  }

  /// All pages of a list.
  template <typename T>
  Result<std::vector<T>> Pages(const std::string& route, const char* field,
                               Result<T> (*reader)(const Json&)) {
    std::vector<T> all;
    std::string token;
    for (size_t page = 0; page < kPagesMax; ++page) {
      std::string asked = fmt::format("{}&max_results={}", route, kPageSize);
      if (!token.empty()) asked += "&page_token=" + Encode(token);
      UMBEL_ASSIGN(const Json answer, Get(asked));
      UMBEL_ASSIGN(std::vector<T> part, ReadEach<T>(route.c_str(), answer, field, reader));
      std::move(part.begin(), part.end(), std::back_inserter(all));
      UMBEL_ASSIGN(token, Read(route.c_str(), answer, [](const Json& json) {
                     return ReadTextOr(json, "next_page_token");
                   }));
      if (token.empty() || part.empty()) return all;
    }
    return Fail(Code::kResourceExhausted,
                fmt::format("{}: more than {} pages of {}", Named(route), kPagesMax, kPageSize));
  }

  const std::string url_;
  Address address_;
  const Options options_;
  std::atomic<bool> cancelled_{false};
  boost::asio::io_context context_{1};
  std::unique_ptr<http::Client> kept_;
  std::unique_ptr<http::Client> fresh_;  // never asks on a connection that was used before
};

}  // namespace

Result<std::unique_ptr<MlflowClient>> MlflowClient::Make(const std::string& url, Options options) {
  UMBEL_ASSIGN(Address address, ReadUrl(url));
  std::string shown = url;
  while (shown.ends_with('/')) shown.pop_back();
  auto client =
      std::make_unique<ClientImpl>(std::move(shown), std::move(address), std::move(options));
  UMBEL_TRY(client->Connect());
  return std::unique_ptr<MlflowClient>(std::move(client));
}

}  // namespace umbel::tracking
