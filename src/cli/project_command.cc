// `umbel project`: asks a running `umbel up` for federated learning projects.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "base/file.h"
#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/settings.h"
#include "cli/table.h"

namespace umbel::cli {
namespace {

using nlohmann::json;

constexpr const char* kFooter = R"(Examples:
  umbel project submit mnist.json --follow
      Submits FLOps's SLA and shows what becomes of it until it is done. Ctrl-C only ends the showing.
  umbel project submit mnist.json --follow --json
      A line of JSON for the project, for each entry of its timeline, and for the project at its end.
  umbel project list
  umbel project show 679cbbae
      Stage, timeline, rounds and best model; the beginning of an id is enough.
  umbel project stop 679cbbae
  umbel project resume 679cbbae
      Undeploys it; takes it up again where it was.
  umbel project rm 679cbbae
      Undeploys it and forgets it. What the tracking server has stays there.)";

constexpr std::chrono::seconds kHold{20};
constexpr std::chrono::seconds kLook{5};  // at what is waited for

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel project: %s\n", error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
std::string Number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? fmt::format("{:.4g}", found->get<double>())
                                                     : "-";
}

void ShowEntry(const json& entry, bool as_json = false) {
  if (as_json) {
    fmt::print("{}\n", entry.dump());
    std::fflush(stdout);
    return;
  }
  const std::string level = Text(entry, "level");
  const std::string at = Text(entry, "at");
  fmt::print("{}  {:<8}  {}{}\n", at.size() > 19 ? at.substr(11, 8) : at, Text(entry, "stage"),
             level == "info" ? "" : level + ": ", Text(entry, "text"));
  std::fflush(stdout);
}

std::string StageOf(const json& project) {
  const std::string pending = Text(project, "pending");
  return Text(project, "stage") + (pending.empty() ? "" : " (" + pending + ")");
}

/// Entries as they come, until the project rests. True: it is done. As JSON one a line, and last
/// the project.
Result<bool> Follow(ApiClient& api, const ApiFlags& flags, const std::string& id) {
  Progress progress("waiting for the first stage");
  for (uint64_t after = 0;;) {
    // First the project, then its entries: the last ones are seen.
    UMBEL_ASSIGN(const json project, api.Get("projects/" + id));
    const bool live = project.value("live", false);
    const std::string waits = Text(project, "waiting_for");
    progress.Say(
        fmt::format("{}{}", Text(project, "stage"), waits.empty() ? "" : " waits " + waits));
    UMBEL_ASSIGN(const json got, api.Get(fmt::format("projects/{}/timeline?after={}&wait={}", id,
                                                     after, live ? kLook.count() : 0),
                                         kLook + std::chrono::seconds(30)));
    for (const json& entry : got["entries"]) {
      after = entry.value("sequence", uint64_t{0});
      ShowEntry(entry, flags.json);
    }
    if (live || !got["entries"].empty()) continue;
    if (flags.json) fmt::print("{}\n", project.dump());
    return Text(project, "stage") == "done";
  }
}

Result<int> Submit(ApiClient& api, const ApiFlags& flags, const std::string& file, bool follow) {
  UMBEL_ASSIGN(std::string sla, ReadFile(file, size_t{2} << 20));
  // A path that is meant from here is not the manager's to look for.
  json document = json::parse(sla, nullptr, false);
  if (document.is_object()) {
    const std::string url = Text(document, "ml_repo_url");
    const std::string path = url.substr(0, url.find('#'));
    std::error_code ignored;
    if (!path.empty() && path.find(':') == std::string::npos && path.front() != '/' &&
        std::filesystem::is_directory(path, ignored)) {
      document["ml_repo_url"] = std::filesystem::canonical(path).native() + url.substr(path.size());
      sla = document.dump();
    }
  }
  UMBEL_ASSIGN(const json project, api.Ask("POST", "projects", sla, std::chrono::seconds(30)));
  if (flags.json)
    fmt::print("{}\n", project.dump(follow ? -1 : 2));
  else
    fmt::print("project {} ({}) is submitted\n", Text(project, "id"), Text(project, "app_name"));
  std::fflush(stdout);
  if (!follow) return 0;
  UMBEL_ASSIGN(const bool done, Follow(api, flags, Text(project, "id")));
  return done ? 0 : 1;
}

Result<int> List(ApiClient& api, const ApiFlags& flags) {
  UMBEL_ASSIGN(const json got, api.Get("projects"));
  if (flags.json) {
    fmt::print("{}\n", got["projects"].dump(2));
    return 0;
  }
  std::vector<std::vector<Cell>> rows;
  for (const json& project : got["projects"]) {
    const json best = project.value("best", json());
    std::string what = Text(project, "waiting_for");
    if (what.empty()) what = Text(project, "failure");
    what = what.substr(0, what.find('\n'));
    if (ColumnsOf(what) > 60) what = what.substr(0, 57) + "...";
    rows.push_back({{Text(project, "id")},
                    {Text(project, "app_name")},
                    {Text(project, "customer")},
                    {StageOf(project)},
                    {best.is_object() ? Number(best, "accuracy") : "-"},
                    {Ago(Text(project, "created_at"))},
                    {what}});
  }
  if (rows.empty()) {
    fmt::print("no projects: `umbel project submit FILE` makes one\n");
    return 0;
  }
  fmt::print("{}", DrawTable({"Project", "App Name", "Customer", "Stage", "Accuracy", "Submitted",
                              "Waits for / failed by"},
                             rows));
  return 0;
}

Result<int> Show(ApiClient& api, const ApiFlags& flags, const std::string& name) {
  UMBEL_ASSIGN(json project, api.Get("projects/" + Escape(name)));
  UMBEL_ASSIGN(const json got, api.Get("projects/" + Escape(name) + "/timeline"));
  if (flags.json) {
    project["timeline"] = got["entries"];
    fmt::print("{}\n", project.dump(2));
    return 0;
  }
  const json sla = project.value("sla", json::object());
  fmt::print("Project     {}  ({})\nCustomer    {}\nRepository  {}  {}\nStage       {}\n",
             Text(project, "id"), Text(project, "app_name"), Text(project, "customer"),
             Text(sla, "ml_repo_url"), Text(project, "commit").substr(0, 12), StageOf(project));
  if (const std::string waits = Text(project, "waiting_for"); !waits.empty())
    fmt::print("Waits       {}\n", waits);
  if (const std::string failure = Text(project, "failure"); !failure.empty())
    fmt::print("Failure     {}\n", failure);
  if (const json best = project.value("best", json()); best.is_object())
    fmt::print("Best        round {}: accuracy {}, loss {}\n", best.value("round", 0),
               Number(best, "accuracy"), Number(best, "loss"));
  if (const json model = project.value("model", json()); model.is_object())
    fmt::print("Model       {}  in run {}\n", Text(model, "model_uri"), Text(model, "run_id"));
  if (!project["rounds"].empty()) {
    std::vector<std::vector<Cell>> rows;
    for (const json& round : project["rounds"])
      rows.push_back({{std::to_string(round.value("round", 0))},
                      {Number(round, "accuracy")},
                      {Number(round, "loss")},
                      {std::to_string(round.value("trained", 0))}});
    fmt::print("\n{}", DrawTable({"Round", "Accuracy", "Loss", "Learners"}, rows));
  }
  fmt::print("\n");
  for (const json& entry : got["entries"]) ShowEntry(entry);
  return 0;
}

Result<int> Act(ApiClient& api, const ApiFlags& flags, const std::string& verb,
                const std::string& name, bool wait) {
  const std::string path = "projects/" + Escape(name);
  UMBEL_ASSIGN(const json project,
               verb == "rm" ? api.Ask("DELETE", path, "", std::chrono::seconds(30))
                            : api.Ask("POST", path + "/" + verb, "", std::chrono::seconds(30)));
  const std::string id = Text(project, "id");
  const Progress progress(fmt::format("undeploying project {}", id));
  for (uint64_t version = 0; wait;) {
    const auto now = api.Get("projects/" + id);
    if (!now.ok() && now.error().code == Code::kNotFound) break;
    if (!now.ok()) return Fail(now.error());
    if (verb != "rm" && Text(*now, "pending").empty()) break;
    UMBEL_ASSIGN(const json change,
                 api.Get(fmt::format("changes?since={}&wait={}", version, kHold.count()),
                         kHold + std::chrono::seconds(15)));
    version = change.value("version", uint64_t{0});
  }
  if (flags.json)
    fmt::print("{}\n", project.dump(2));
  else
    fmt::print("project {} is {}\n", id,
               verb == "rm"     ? (wait ? "gone" : "being removed")
               : verb == "stop" ? (wait ? "stopped" : "being stopped")
                                : "taken up again");
  return 0;
}

}  // namespace

int ProjectCommand(int argc, char** argv) {
  CLI::App app("Federated learning projects of a running `umbel up`.", "umbel project");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  ApiFlags flags;
  AddApiFlags(app, &flags);
  std::string file, name;
  bool follow = false, no_wait = false;
  CLI::App* submit = app.add_subcommand("submit", "Submit a project: FLOps's SLA, a JSON file");
  submit->add_option("FILE", file, "The SLA")->required();
  submit->add_flag("--follow,-f", follow, "Show what becomes of it, until it is done");
  app.add_subcommand("list", "All projects");
  CLI::App* show = app.add_subcommand("show", "One project with its timeline");
  CLI::App* stop = app.add_subcommand("stop", "Undeploy a project");
  CLI::App* resume = app.add_subcommand("resume", "Take up a stopped or failed one again");
  CLI::App* remove = app.add_subcommand("rm", "Undeploy a project and forget it");
  CLI::App* watch = app.add_subcommand("follow", "Show what becomes of a project");
  for (CLI::App* each : {show, stop, resume, remove, watch})
    each->add_option("PROJECT", name, "Its id, the beginning of that, or its app's name")
        ->required();
  for (CLI::App* each : {stop, remove})
    each->add_flag("--no-wait", no_wait, "Do not wait until nothing of it runs");
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain(api.error());
  Result<int> end = 0;
  if (app.got_subcommand("submit"))
    end = Submit(*api, flags, file, follow);
  else if (app.got_subcommand("list"))
    end = List(*api, flags);
  else if (app.got_subcommand("show"))
    end = Show(*api, flags, name);
  else if (app.got_subcommand("follow")) {
    const auto done = Follow(*api, flags, Escape(name));
    end = done.ok() ? Result<int>(*done ? 0 : 1) : Result<int>(Fail(done.error()));
  } else {
    const std::string verb = app.get_subcommands().front()->get_name();
    end = Act(*api, flags, verb, name, !no_wait && verb != "resume");
  }
  return end.ok() ? *end : Complain(end.error());
}

}  // namespace umbel::cli
