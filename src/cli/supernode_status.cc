// `umbel supernode status`: what the SuperNode on a port is doing, for a person.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/settings.h"
#include "http/call.h"

namespace umbel::cli {
namespace {

constexpr size_t kAnswerMax = size_t{64} << 20;

Result<std::string> Ask(const http::ClientOptions& options) {
  http::ClientRequest request("GET", "/v1/umbel/node-status");
  request.timeout = std::chrono::seconds(5);
  UMBEL_ASSIGN(http::ClientResponse answer, http::CallOnce(options, request, kAnswerMax));
  if (answer.status != 200)
    return Fail(Code::kUnavailable, fmt::format("{}:{} is no SuperNode of umbel's (it answers {})",
                                                options.host, options.port, answer.status));
  return std::move(answer.body);
}

void Show(const nlohmann::json& status) {
  fmt::print("SuperLink   {}\nState       {}\nClientApps  {}: {}\nLimits      {}\n",
             status.value("superlink", ""), status.value("state", ""), status.value("host", ""),
             status.value("host_state", ""), status.value("confinement", ""));
  for (const auto& run : status.value("runs", nlohmann::json::array()))
    fmt::print("Run         {}  {}\n", run.value("run_id", uint64_t{0}), run.value("app", ""));
  for (const auto& site : status.value("sites", nlohmann::json::array())) {
    fmt::print("Site {:<6} node {}  {}  {} instructions, {} replies, {} of them errors\n",
               site.value("site", 0), site.value("node_id", uint64_t{0}),
               site.value("connected", false)
                   ? "connected since " + site.value("connected_since", "")
                   : "not connected",
               site.value("instructions", uint64_t{0}), site.value("replies", uint64_t{0}),
               site.value("error_replies", uint64_t{0}));
    for (const auto& work : site.value("working_on", nlohmann::json::array()))
      fmt::print("            {}  {}\n", work.value("message_id", "").substr(0, 12),
                 work.value("state", ""));
    if (const std::string error = site.value("last_error", ""); !error.empty())
      fmt::print("            last error: {}\n", error);
  }
}

}  // namespace

int SuperNodeStatusCommand(int argc, char** argv) {
  CLI::App app("Show what a SuperNode is doing.", "umbel supernode status");
  app.footer("Examples:\n  umbel supernode status --port 9095\n  umbel supernode status --json");
  http::ClientOptions options;
  options.port = 9094;
  bool json = false;
  app.add_option("--host", options.host, "Where the SuperNode listens");
  app.add_option("--port", options.port, "Its port");
  app.add_option("--root-certificates", options.root_certificates,
                 "PEM file of its CA, if it serves TLS");
  app.add_flag("--json", json, "As JSON");
  if (const auto status = Parse(app, argc, argv)) return *status;
  options.tls = !options.root_certificates.empty();
  const auto text = Ask(options);
  if (!text.ok()) {
    std::fprintf(stderr, "umbel supernode status: %s\n", text.error().message.c_str());
    return 1;
  }
  const auto status = nlohmann::json::parse(*text, nullptr, false);
  if (json || !status.is_object()) {
    std::puts(text->c_str());
  } else {
    Show(status);
  }
  return 0;
}

}  // namespace umbel::cli
