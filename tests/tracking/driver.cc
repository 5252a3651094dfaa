// umbel_tracking_driver URL SPOOL: a tracker that does what each line of standard input says, a
// JSON object, and answers with one line: {} or {"error": …}. Ends with its input, without waiting
// for what is not sent.
//
//   {"do": "begin", "run", "experiment", "name", "at", "params": {}, "tags": {}}
//   {"do": "log", "run", "metrics": [[key, value, at, step], …]}   value: a number or its name
//   {"do": "tag", "run", "key", "value"}    {"do": "end", "run", "status", "at"}
//   {"do": "flush", "ms"}                   {"do": "state"}      -> waiting, refused, trouble
//   {"do": "ids", "run"}                    -> run_id, experiment_id
//   {"do": "models"}                        -> models: {name: {alias: version}}
//   {"do": "best", "model"}                 -> version, run_id, source
//   {"do": "history", "run", "key"}         -> values, as text
// Times are milliseconds since 1970.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/log.h"
#include "tracking/mlflow.h"
#include "tracking/tracker.h"

namespace umbel::tracking {
namespace {

using Json = nlohmann::json;

WallTime Time(const Json& json) { return WallTime(std::chrono::milliseconds(json.get<int64_t>())); }

Json Failed(const Error& error) { return {{"error", error.ToString()}}; }

double Number(const Json& json) {
  return json.is_string() ? std::strtod(json.get<std::string>().c_str(), nullptr)
                          : json.get<double>();
}

Status Say(Tracker& tracker, const std::string& what, const Json& in) {
  const std::string run = in.value("run", std::string());
  if (what == "begin") {
    RunStart start;
    start.id = run;
    start.experiment = in.at("experiment");
    start.name = in.at("name");
    start.started_at = Time(in.at("at"));
    start.params = in.value("params", std::map<std::string, std::string>());
    start.tags = in.value("tags", std::map<std::string, std::string>());
    return tracker.Begin(start);
  }
  if (what == "log") {
    std::vector<Metric> metrics;
    for (const Json& one : in.at("metrics"))
      metrics.push_back({one.at(0), Number(one.at(1)), Time(one.at(2)), one.at(3)});
    return tracker.Log(run, metrics);
  }
  if (what == "tag") return tracker.Tag(run, in.at("key"), in.at("value"));
  if (what == "end") return tracker.End(run, in.at("status"), Time(in.at("at")));
  if (what == "flush") return tracker.Flush(std::chrono::milliseconds(in.at("ms").get<int>()));
  return Fail(Code::kInvalidArgument, "unknown: " + what);
}

Json Do(Tracker& tracker, MlflowClient& client, const Json& in) {
  const std::string what = in.at("do");
  const std::string run = in.value("run", std::string());
  if (what == "state") {
    const TrackerState state = tracker.state();
    return {{"waiting", state.waiting}, {"refused", state.refused}, {"trouble", state.trouble}};
  }
  if (what == "ids")
    return {{"run_id", tracker.RunIdOf(run).value_or("")},
            {"experiment_id", tracker.ExperimentIdOf(run).value_or("")}};
  if (what == "models") {
    const auto models = client.Models();
    if (!models.ok()) return Failed(models.error());
    Json out = Json::object();
    for (const RegisteredModel& model : *models) out[model.name] = model.aliases;
    return {{"models", out}};
  }
  if (what == "best") {
    const auto best = client.VersionByAlias(in.at("model"), "best");
    if (!best.ok()) return Failed(best.error());
    return {{"version", best->version}, {"run_id", best->run_id}, {"source", best->source}};
  }
  if (what == "history") {
    const auto history = client.History(tracker.RunIdOf(run).value_or(""), in.at("key"));
    if (!history.ok()) return Failed(history.error());
    Json values = Json::array();
    for (const Metric& metric : *history) values.push_back(fmt::format("{}", metric.value));
    return {{"values", values}};
  }
  const Status said = Say(tracker, what, in);
  return said.ok() ? Json::object() : Failed(said.error());
}

int Main(const std::string& url, const std::string& spool) {
  // Answers have standard output for themselves.
  if (const Status started = LogStart({}); !started.ok()) {
    std::cerr << started.error().ToString() << "\n";
    return 1;
  }
  Tracker::Options options;
  options.url = url;
  options.spool = spool;
  auto tracker = Tracker::Open(options);
  auto client = MlflowClient::Make(url, {});
  if (!tracker.ok() || !client.ok()) {
    const Error& error = tracker.ok() ? client.error() : tracker.error();
    std::cerr << error.ToString() << "\n";
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line))
    std::cout << Do(**tracker, **client, Json::parse(line)).dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace umbel::tracking

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: umbel_tracking_driver URL SPOOL\n");
    return 2;
  }
  return umbel::tracking::Main(argv[1], argv[2]);
}
