// `umbel ps`, `logs`, `nodes` and `tracking`: what a running `umbel up` knows.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/settings.h"
#include "cli/table.h"

namespace umbel::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kHold{20};
constexpr std::chrono::seconds kLook{2};  // at why something is waited for

int Complain(const char* command, const Error& error) {
  std::fprintf(stderr, "umbel %s: %s\n", command, error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

void ShowServices(const json& services, bool wide) {
  std::vector<std::vector<Cell>> rows;
  std::string notes;
  for (const json& service : services) {
    Cell instances;
    for (const json& instance : service["instances"]) {
      if (!instances.empty()) instances.push_back("");
      const std::string state = Upper(Text(instance, "state"));
      const std::string node = Text(instance, "node");
      instances.push_back(fmt::format(" {} {:<11}{}", instance.value("number", 0), state,
                                      wide && !node.empty() ? " " + node : ""));
      if (const std::string detail = Text(instance, "detail"); !detail.empty())
        notes += fmt::format("{}: {}\n", Text(instance, "name"), detail);
    }
    if (instances.empty()) instances.push_back(service.value("gone", false) ? " removed" : " -");
    std::vector<Cell> row = {{Text(service, "name")},
                             {Text(service, "id")},
                             instances,
                             {Text(service, "app_name")},
                             {Text(service, "app_id")}};
    if (wide) row.push_back({Text(service, "url")});
    rows.push_back(std::move(row));
  }
  std::vector<std::string> head = {"Service Name", "Service ID", "Instances", "App Name", "App ID"};
  if (wide) head.emplace_back("URL");
  fmt::print("{}{}", DrawTable(head, rows), notes);
}

std::string Bytes(uint64_t bytes) {
  return bytes == 0 ? "-" : fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

struct LogWish {
  std::string name;
  bool follow = false;
  bool as_json = false;
};

/// As text; as JSON, one object of all that is there or, followed, one a line as it comes.
Result<bool> PrintLog(ApiClient& api, const LogWish& wish) {
  std::string all;
  for (uint64_t offset = 0;;) {
    const auto got = api.Get(fmt::format("services/{}/logs?offset={}&wait={}", Escape(wish.name),
                                         offset, wish.follow ? kHold.count() : 0),
                             kHold + std::chrono::seconds(15));
    // What was followed is gone with its project.
    if (!got.ok() && got.error().code == Code::kNotFound && offset > 0) return true;
    if (!got.ok()) return Fail(got.error());
    const json& part = *got;
    const std::string text = Text(part, "text");
    const bool ended = part.value("ended", false);
    offset = part.value("next", offset);
    if (!wish.as_json)
      std::fwrite(text.data(), 1, text.size(), stdout);
    else if (!wish.follow)
      all += text;
    else if (!text.empty() || ended)
      fmt::print("{}\n", part.dump());
    std::fflush(stdout);
    if (!ended && (!text.empty() || wish.follow)) continue;
    if (wish.as_json && !wish.follow)
      fmt::print("{}\n", json({{"text", all}, {"next", offset}, {"ended", ended}}).dump(2));
    return true;
  }
}

}  // namespace

int PsCommand(int argc, char** argv) {
  CLI::App app("Services and their instances.", "umbel ps");
  app.footer(
      "Examples:\n  umbel ps\n  umbel ps --wide   with nodes and addresses\n"
      "  umbel ps --all    also those that have been removed, whose logs are kept");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  bool all = false, wide = false;
  app.add_flag("--all,-a", all, "Also removed ones");
  app.add_flag("--wide,-w", wide, "With nodes and addresses");
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("ps", api.error());
  const auto got = api->Get(all ? "services?all=1" : "services");
  if (!got.ok()) return Complain("ps", got.error());
  const json& services = (*got)["services"];
  if (flags.json)
    fmt::print("{}\n", services.dump(2));
  else if (services.empty())
    fmt::print("no services: `umbel project submit FILE` makes some\n");
  else
    ShowServices(services, wide);
  return 0;
}

int LogsCommand(int argc, char** argv) {
  CLI::App app("What a service says.", "umbel logs");
  app.footer(
      "Examples:\n  umbel logs observ11e3c5ca7c4c -f\n"
      "      A project's own log: rounds as they end, and the best model at the end.\n"
      "  umbel logs flearner11e3c5ca7c4c.1\n"
      "      One of several instances. `umbel ps --all` has the names; logs of what was removed "
      "are kept.\n"
      "  umbel logs observ11e3c5ca7c4c -f --json\n      Each part as a line of JSON, as it comes.");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  std::string name;
  bool follow = false;
  app.add_option("NAME", name, "Of a service, or of an instance: NAME.NUMBER")->required();
  app.add_flag("--follow,-f", follow, "Go on until it ends");
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("logs", api.error());
  const auto printed = PrintLog(*api, {name, follow, flags.json});
  return printed.ok() ? 0 : Complain("logs", printed.error());
}

int NodesCommand(int argc, char** argv) {
  CLI::App app("Nodes, what they may run and what is set aside on them.", "umbel nodes");
  app.footer("Examples:\n  umbel nodes\n  umbel nodes --json");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("nodes", api.error());
  const auto got = api->Get("nodes");
  if (!got.ok()) return Complain("nodes", got.error());
  const json& nodes = (*got)["nodes"];
  if (flags.json) {
    fmt::print("{}\n", nodes.dump(2));
    return 0;
  }
  std::vector<std::vector<Cell>> rows;
  for (const json& node : nodes) {
    std::string addons;
    for (const json& addon : node["addons"])
      addons += (addons.empty() ? "" : ", ") + addon.get<std::string>();
    const auto used = [&](const char* key) { return node["reserved"].value(key, uint64_t{0}); };
    const auto capacity = [&](const char* key) { return node["capacity"].value(key, uint64_t{0}); };
    rows.push_back(
        {{Text(node, "name")},
         {node.value("up", false) ? "up" : "down"},
         {addons.empty() ? "-" : addons},
         {fmt::format("{} of {}", Bytes(used("memory_bytes")), Bytes(capacity("memory_bytes")))},
         {fmt::format("{:.1f} of {:.1f}", static_cast<double>(used("cpu_millicores")) / 1e3,
                      static_cast<double>(capacity("cpu_millicores")) / 1e3)}});
  }
  fmt::print("{}", DrawTable({"Node", "State", "Add-ons", "Memory", "CPUs"}, rows));
  return 0;
}

int TrackingCommand(int argc, char** argv) {
  CLI::App app(
      "Where a customer's tracking server is, with its GUI; starts it if there is none, and waits "
      "until it answers.",
      "umbel tracking");
  app.footer(
      "Examples:\n  umbel tracking\n  umbel tracking --customer alice --no-wait\n"
      "      Only the address, which it keeps.");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  std::string customer;
  bool no_wait = false;
  app.add_option("--customer", customer, "Whose [who asks]");
  app.add_flag("--no-wait", no_wait, "Do not wait until it answers");
  if (const auto status = Parse(app, argc, argv)) return *status;
  if (customer.empty()) customer = flags.user;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("tracking", api.error());
  Progress progress("waiting for the tracking server");
  for (;;) {
    const auto got = api->Get(
        fmt::format("tracking?customer={}&wait={}", Escape(customer), no_wait ? 0 : kLook.count()),
        kHold + std::chrono::seconds(15));
    if (!got.ok()) return Complain("tracking", got.error());
    const std::string words = Text(*got, "waiting_for");
    if (!words.empty() && !no_wait) {
      progress.Say(words);
      continue;
    }
    if (flags.json)
      fmt::print("{}\n", got->dump(2));
    else
      fmt::print("{}\n", Text(*got, "url"));
    return 0;
  }
}

}  // namespace umbel::cli
