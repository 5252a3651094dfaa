// For tests: an MLflow server in this process, with the rules of the real one that matter here, and
// with faults. What it has taken is looked at from any thread.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "http/server.h"

namespace umbel::tracking {

/// What becomes of one request.
enum class Fault {
  kNone,
  kLost,     // not carried out, the connection closed
  kUnheard,  // carried out, the connection closed without an answer
  kBusy,     // 503 of a proxy
  kError,    // 500 in MLflow's words
  kTooMany,  // 429
  kGarbage,  // carried out, answered 200 with something else
  kHang,     // not carried out, not answered
};

struct FakeRun {
  std::string id;
  std::string experiment_id;
  std::string name;
  std::string status = "RUNNING";
  int64_t start_ms = 0;
  int64_t end_ms = 0;
  bool deleted = false;
  std::map<std::string, std::string> params;
  std::map<std::string, std::string> tags;
  /// In order of arrival; the real one's table has these five as its key, too.
  std::vector<std::tuple<std::string, std::string, int64_t, int64_t>> points;
  size_t repeated = 0;  // points that came again
  /// What was said, in order, repetitions left out: "param a", "metric loss 1", "end FINISHED".
  std::vector<std::string> said;
};

class FakeMlflow {
 public:
  using Json = nlohmann::json;

  FakeMlflow() { Start(0); }
  ~FakeMlflow() { Stop(); }

  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  /// As a process that ends: what it has taken stays.
  void Stop() {
    if (server_) server_->Stop(std::chrono::milliseconds(0));
    server_.reset();
  }
  void Restart() { Start(port_); }

  /// Asked for each request, by its route and body, under the lock.
  using Faults = std::function<Fault(const std::string& route, const std::string& body)>;
  void OnRequest(Faults faults) {
    std::lock_guard lock(mutex_);
    faults_ = std::move(faults);
  }
  size_t requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  /// The runs with that tag that are not deleted.
  std::vector<FakeRun> RunsOf(const std::string& id) {
    std::lock_guard lock(mutex_);
    std::vector<FakeRun> out;
    for (const auto& [run_id, run] : runs_) {
      const auto tag = run.tags.find("umbel.run");
      if (!run.deleted && tag != run.tags.end() && tag->second == id) out.push_back(run);
    }
    return out;
  }
  FakeRun RunOf(const std::string& id) {
    const auto runs = RunsOf(id);
    EXPECT_EQ(runs.size(), 1U) << id;
    return runs.empty() ? FakeRun() : runs.front();
  }
  /// As a new server with an empty database.
  void Forget() {
    std::lock_guard lock(mutex_);
    runs_.clear();
    experiments_.clear();
    seen_.clear();
  }
  /// Somebody else is always faster with these.
  void PutParams(std::map<std::string, std::string> params) {
    std::lock_guard lock(mutex_);
    foreign_params_ = std::move(params);
  }
  void DeleteRun(const std::string& run_id) {
    std::lock_guard lock(mutex_);
    runs_[run_id].deleted = true;
  }
  void PutExperiment(const std::string& name, bool deleted) {
    std::lock_guard lock(mutex_);
    experiments_[name] = {fmt::format("{}", ++ids_), deleted};
  }
  bool ExperimentIsDeleted(const std::string& name) {
    std::lock_guard lock(mutex_);
    return experiments_.at(name).second;
  }

 private:
  void Start(uint16_t port) {
    http::ServerOptions options;
    options.port = port;
    auto server =
        http::Server::Start(options, [this](http::Exchange& exchange) { return Handle(exchange); });
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
    port_ = server_->port();
  }

  http::Task<void> Handle(http::Exchange& exchange) {
    auto body = co_await exchange.ReadBody(size_t{4} << 20);
    if (!body.ok()) co_return;
    const std::string path(exchange.path());
    http::Response answer(404, "text/html", "<h1>Not Found</h1>");
    Fault fault = Fault::kNone;
    Answer(path, std::string(exchange.query()), *body, answer, fault);
    if (fault == Fault::kHang)
      co_await exchange.Hold(std::chrono::steady_clock::now() + std::chrono::seconds(60), false);
    if (fault == Fault::kHang || fault == Fault::kLost || fault == Fault::kUnheard) co_return;
    co_await exchange.Reply(std::move(answer));
  }

  void Answer(const std::string& path, const std::string& query, const std::string& body,
              http::Response& answer, Fault& fault) {
    constexpr std::string_view kPrefix = "/api/2.0/mlflow/";
    if (!path.starts_with(kPrefix)) return;
    const std::string route = path.substr(kPrefix.size());
    std::lock_guard lock(mutex_);
    ++requests_;
    fault = faults_ ? faults_(route, body) : Fault::kNone;
    answer.content_type = "application/json";
    if (fault == Fault::kBusy) answer = http::Response(503, "text/html", "<h1>busy</h1>");
    if (fault == Fault::kError) Refuse(answer, 500, "INTERNAL_ERROR", "(sqlite3) disk I/O error");
    if (fault == Fault::kTooMany) Refuse(answer, 429, "REQUEST_LIMIT_EXCEEDED", "too many");
    if (fault != Fault::kNone && fault != Fault::kUnheard && fault != Fault::kGarbage) return;
    const Json json = body.empty() ? Json::object() : Json::parse(body, nullptr, false);
    if (!json.is_object()) return Refuse(answer, 400, "BAD_REQUEST", "not JSON");
    answer.status = 200;
    answer.body = "{}";
    Serve(route, query, json, body.size(), answer);
    if (fault == Fault::kGarbage) answer = http::Response(200, "text/html", "<p>hello</p>");
  }

  static void Refuse(http::Response& answer, int status, const char* word, std::string text) {
    answer = http::Response(status, "application/json",
                            Json{{"error_code", word}, {"message", std::move(text)}}.dump());
  }

  void Serve(const std::string& route, const std::string& query, const Json& json, size_t bytes,
             http::Response& answer) {
    if (route == "experiments/get-by-name") return GetExperiment(query, answer);
    if (route == "experiments/create") {
      const std::string name = json.at("name");
      if (experiments_.count(name) != 0)
        return Refuse(answer, 400, "RESOURCE_ALREADY_EXISTS", "there is one");
      experiments_[name] = {fmt::format("{}", ++ids_), false};
      answer.body = Json{{"experiment_id", experiments_[name].first}}.dump();
    } else if (route == "experiments/restore") {
      for (auto& [name, experiment] : experiments_)
        if (experiment.first == json.at("experiment_id")) experiment.second = false;
    } else if (route == "runs/create") {
      CreateRun(json, answer);
    } else if (route == "runs/search") {
      Search(json, answer);
    } else {
      const std::string id = route == "runs/get" ? query.substr(query.find('=') + 1)
                                                 : json.value("run_id", std::string());
      const auto found = runs_.find(id);
      if (found == runs_.end())
        return Refuse(answer, 404, "RESOURCE_DOES_NOT_EXIST",
                      fmt::format("Run with id={} not found", id));
      FakeRun& run = found->second;
      if (route == "runs/get") {
        answer.body = Json{{"run", Shown(run)}}.dump();
        return;
      }
      if (run.deleted)
        return Refuse(answer, 400, "INVALID_PARAMETER_VALUE",
                      "The run must be in the 'active' state.");
      if (route == "runs/delete") run.deleted = true;
      if (route == "runs/update") {
        run.status = json.at("status");
        run.end_ms = json.at("end_time");
        const std::string said = "end " + run.status;
        if (run.said.empty() || run.said.back() != said) run.said.push_back(said);
      }
      if (route == "runs/log-batch") LogBatch(run, json, bytes, answer);
    }
  }

  void GetExperiment(const std::string& query, http::Response& answer) {
    std::string name;
    const std::string encoded = query.substr(query.find('=') + 1);
    for (size_t i = 0; i < encoded.size(); ++i) {
      if (encoded[i] == '%') {
        name += static_cast<char>(std::stoi(encoded.substr(i + 1, 2), nullptr, 16));
        i += 2;
      } else {
        name += encoded[i];
      }
    }
    const auto found = experiments_.find(name);
    if (found == experiments_.end())
      return Refuse(answer, 404, "RESOURCE_DOES_NOT_EXIST", "no experiment " + name);
    const char* stage = found->second.second ? "deleted" : "active";
    answer.body =
        Json{{"experiment",
              {{"experiment_id", found->second.first}, {"name", name}, {"lifecycle_stage", stage}}}}
            .dump();
  }

  void CreateRun(const Json& json, http::Response& answer) {
    for (const auto& [name, experiment] : experiments_) {
      if (experiment.first != json.at("experiment_id")) continue;
      if (experiment.second)
        return Refuse(answer, 400, "INVALID_PARAMETER_VALUE", "the experiment is deleted");
      FakeRun run;
      run.id = fmt::format("{:032x}", 0x1000 + ++ids_);
      run.experiment_id = experiment.first;
      run.name = json.at("run_name");
      run.start_ms = json.at("start_time");
      run.params = foreign_params_;
      for (const Json& tag : json.at("tags")) run.tags[tag.at("key")] = tag.at("value");
      answer.body = Json{{"run", Shown(run)}}.dump();
      runs_[run.id] = run;
      return;
    }
    Refuse(answer, 404, "RESOURCE_DOES_NOT_EXIST", "no such experiment");
  }

  void Search(const Json& json, http::Response& answer) {
    Json list = Json::array();
    for (const auto& [id, run] : runs_) {
      if (run.deleted || json.at("experiment_ids").at(0) != run.experiment_id) continue;
      const auto tag = run.tags.find("umbel.run");
      if (tag != run.tags.end() && json.at("filter") == "tags.`umbel.run` = '" + tag->second + "'")
        list.push_back(Shown(run));
    }
    answer.body = list.empty() ? "{}" : Json{{"runs", list}}.dump();
  }

  static Json Shown(const FakeRun& run) {
    return {{"info",
             {{"run_id", run.id},
              {"experiment_id", run.experiment_id},
              {"run_name", run.name},
              {"status", run.status},
              {"start_time", run.start_ms},
              {"lifecycle_stage", run.deleted ? "deleted" : "active"}}},
            {"data", Json::object()}};
  }

  void LogBatch(FakeRun& run, const Json& json, size_t bytes, http::Response& answer) {
    const Json& metrics = json.at("metrics");
    const Json& params = json.at("params");
    const Json& tags = json.at("tags");
    std::set<std::string> keys;
    for (const Json& param : params) keys.insert(param.at("key").get<std::string>());
    if (metrics.size() > 1000 || params.size() > 100 || tags.size() > 100 ||
        metrics.size() + params.size() + tags.size() > 1000 || bytes > 1'000'000 ||
        keys.size() != params.size())
      return Refuse(answer, 400, "INVALID_PARAMETER_VALUE", "more than a batch may hold");
    for (const Json& metric : metrics)
      if (metric.at("key").get<std::string>().find('#') != std::string::npos)
        return Refuse(answer, 400, "INVALID_PARAMETER_VALUE", "Invalid metric name");
    // Not one transaction, as with the real one: params first, then the rest.
    for (const Json& param : params) {
      const std::string key = param.at("key"), value = param.at("value");
      const auto known = run.params.find(key);
      if (known != run.params.end() && known->second != value)
        return Refuse(answer, 400, "INVALID_PARAMETER_VALUE",
                      "Changing param values is not allowed. " + key);
    }
    for (const Json& param : params)
      if (run.params.emplace(param.at("key"), param.at("value")).second)
        run.said.push_back("param " + param.at("key").get<std::string>());
    for (const Json& metric : metrics) {
      const std::tuple point(metric.at("key").get<std::string>(), metric.at("value").dump(),
                             metric.at("timestamp").get<int64_t>(),
                             metric.at("step").get<int64_t>());
      if (!seen_.insert({run.id, point}).second) {
        ++run.repeated;
        continue;
      }
      run.points.push_back(point);
      run.said.push_back(fmt::format("metric {} {}", std::get<0>(point), std::get<3>(point)));
    }
    for (const Json& tag : tags) run.tags[tag.at("key")] = tag.at("value");
  }

  std::mutex mutex_;
  Faults faults_;
  std::map<std::string, std::string> foreign_params_;
  size_t requests_ = 0;
  uint64_t ids_ = 0;
  std::map<std::string, std::pair<std::string, bool>> experiments_;  // name: id, deleted
  std::map<std::string, FakeRun> runs_;
  std::set<std::pair<std::string, std::tuple<std::string, std::string, int64_t, int64_t>>> seen_;
  uint16_t port_ = 0;
  std::unique_ptr<http::Server> server_;
};

}  // namespace umbel::tracking
