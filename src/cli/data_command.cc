// `umbel data`, `models` and `predict`: what goes into training, and what comes out of it.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>

#include "base/file.h"
#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/settings.h"
#include "cli/table.h"
#include "http/call.h"

namespace umbel::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kHold{20};
constexpr size_t kInputMax = size_t{256} << 20;

int Complain(const char* command, const Error& error) {
  std::fprintf(stderr, "umbel %s: %s\n", command, error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// Of a service with one instance; "": there is none yet.
std::string StateOf(const json& services, const std::string& name) {
  for (const json& service : services)
    if (Text(service, "name") == name && !service["instances"].empty())
      return Text(service["instances"][0], "state");
  return "";
}

struct Mock {
  std::string customer = "Admin";
  std::string dataset = "mnist";
  int64_t partitions = 1;
  std::string tag;
};

Result<int> MakeMock(ApiClient& api, const ApiFlags& flags, const Mock& mock) {
  const json document = {{"customerID", mock.customer},
                         {"mock_data_configuration",
                          {{"dataset_name", mock.dataset},
                           {"number_of_partitions", mock.partitions},
                           {"data_tag", mock.tag}}}};
  UMBEL_ASSIGN(const json made,
               api.Ask("POST", "mocks", document.dump(), std::chrono::seconds(30)));
  const std::string name = Text(made, "service");
  std::string state, before;
  for (uint64_t version = 0; state != "completed" && state != "failed";) {
    UMBEL_ASSIGN(const json got, api.Get("services"));
    state = StateOf(got["services"], name);
    if (state != std::exchange(before, state))
      fmt::print(stderr, "{} is {}\n", name, state.empty() ? "waiting for data servers" : state);
    if (state == "completed" || state == "failed") break;
    UMBEL_ASSIGN(const json change,
                 api.Get(fmt::format("changes?since={}&wait={}", version, kHold.count()),
                         kHold + std::chrono::seconds(15)));
    version = change.value("version", uint64_t{0});
  }
  UMBEL_ASSIGN(const json log, api.Get("services/" + Escape(name) + "/logs"));
  if (flags.json)
    fmt::print("{}\n", made.dump(2));
  else
    fmt::print("{}", Text(log, "text"));
  return state == "completed" ? 0 : 1;
}

Result<int> ShowServers(ApiClient& api, const ApiFlags& flags) {
  UMBEL_ASSIGN(const json got, api.Get("services"));
  std::vector<std::vector<Cell>> rows;
  json servers = json::array();
  for (const json& service : got["services"]) {
    if (Text(service, "namespace") != "mldata" || service["instances"].empty()) continue;
    const json& instance = service["instances"][0];
    servers.push_back({{"node", instance["node"]}, {"location", service["url"]}});
    rows.push_back({{Text(instance, "node")}, {Text(instance, "state")}, {Text(service, "url")}});
  }
  if (flags.json)
    fmt::print("{}\n", servers.dump(2));
  else if (rows.empty())
    fmt::print(
        "no data servers: they come with the first mock data, or the first project with "
        "data_tags\n");
  else
    fmt::print("{}umbel-dataserver put, list and drop take these locations.\n",
               DrawTable({"Node", "State", "Location"}, rows));
  return 0;
}

/// Host and port of "http://HOST:PORT".
Result<http::ClientOptions> ServerAt(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  const std::string_view rest = std::string_view(url).substr(std::min(url.size(), kScheme.size()));
  const size_t colon = std::min(rest.rfind(':'), rest.size());
  http::ClientOptions options;
  options.host = rest.substr(0, colon);
  unsigned port = 0;
  std::from_chars(rest.data() + std::min(colon + 1, rest.size()), rest.data() + rest.size(), port);
  if (!url.starts_with(kScheme) || port == 0 || port > 65535)
    return Fail(Code::kInvalidArgument, fmt::format("'{}' is not http://HOST:PORT", url));
  options.port = static_cast<uint16_t>(port);
  options.connect_timeout = std::chrono::seconds(5);
  return options;
}

Result<http::ClientResponse> Invoke(const std::string& url, const std::string& type,
                                    std::string body) {
  UMBEL_ASSIGN(http::ClientOptions options, ServerAt(url));
  http::ClientRequest request("POST", "/invocations");
  request.content_type = type;
  request.body = std::move(body);
  request.timeout = std::chrono::minutes(5);
  return http::CallOnce(std::move(options), request, kInputMax);
}

/// What a server that refuses an input says: MLflow's message, and of a trace the last line.
std::string WhyNot(const std::string& body) {
  const json told = json::parse(body, nullptr, false);
  if (!told.is_object()) return body.substr(0, 500);
  std::string why = Text(told, "message");
  std::string trace = Text(told, "stack_trace");
  while (!trace.empty() && trace.back() == '\n') trace.pop_back();
  if (!trace.empty()) why += " (" + trace.substr(trace.rfind('\n') + 1) + ")";
  return why;
}

/// The service of a project, or the only one there is.
Result<std::string> FindServed(ApiClient& api, const std::string& name) {
  std::string id;
  if (!name.empty()) {
    UMBEL_ASSIGN(const json project, api.Get("projects/" + Escape(name)));
    id = Text(project, "id");
  }
  UMBEL_ASSIGN(const json got, api.Get("services"));
  std::vector<std::string> urls;
  for (const json& service : got["services"])
    if (Text(service, "namespace") == "trmodel" && (id.empty() || Text(service, "project") == id))
      urls.push_back(Text(service, "url"));
  if (urls.size() == 1) return urls[0];
  if (urls.empty())
    return Fail(Code::kNotFound,
                "no model is served: an SLA asks for it with \"post_training_steps\": "
                "[\"build_image_for_trained_model\", \"deploy_trained_model_image\"]");
  return Fail(Code::kInvalidArgument,
              fmt::format("{} models are served: name a project with --project", urls.size()));
}

}  // namespace

int DataCommand(int argc, char** argv) {
  CLI::App app("Data of learner nodes: where their data servers are, and mock data.", "umbel data");
  app.footer(
      "Examples:\n  umbel data mock --dataset mnist --partitions 2 --tag mnist\n"
      "      Fashion-MNIST in two halves, one for each learner node.\n  umbel data\n"
      "      Where the data servers are. Files of one's own are put there so:\n"
      "  umbel-dataserver put scans.parquet --tag hospital-a --to grpc://127.0.0.1:11027");
  app.require_subcommand(0, 1);
  app.fallthrough();
  ApiFlags flags;
  AddApiFlags(app, &flags);
  Mock mock;
  app.add_subcommand("servers", "Where the data servers are");
  CLI::App* fill = app.add_subcommand("mock", "Fill them with a known data set");
  fill->add_option("--dataset", mock.dataset, "mnist, fashion-mnist or digits")
      ->capture_default_str();
  fill->add_option("--partitions", mock.partitions, "Into how many parts it is cut")
      ->capture_default_str();
  fill->add_option("--tag", mock.tag, "What projects ask for it by, in data_tags")->required();
  fill->add_option("--customer", mock.customer, "Whose it is")->capture_default_str();
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("data", api.error());
  const auto end =
      app.got_subcommand("mock") ? MakeMock(*api, flags, mock) : ShowServers(*api, flags);
  return end.ok() ? *end : Complain("data", end.error());
}

int ModelsCommand(int argc, char** argv) {
  CLI::App app("Models that projects have logged.", "umbel models");
  app.footer("Examples:\n  umbel models\n  umbel models --json");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  if (const auto status = Parse(app, argc, argv)) return *status;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("models", api.error());
  const auto got = api->Get("projects");
  if (!got.ok()) return Complain("models", got.error());
  std::vector<std::vector<Cell>> rows;
  json models = json::array();
  for (const json& project : (*got)["projects"]) {
    if (!project["model"].is_object()) continue;
    const json& best = project["best"];
    const auto number = [&best](const char* key) {
      return best.is_object() && best[key].is_number()
                 ? fmt::format("{:.4g}", best[key].get<double>())
                 : std::string("-");
    };
    models.push_back({{"project", project["id"]}, {"best", best}, {"model", project["model"]}});
    rows.push_back({{Text(project, "id")},
                    {Text(project, "app_name")},
                    {number("round")},
                    {number("accuracy")},
                    {number("loss")},
                    {Text(project["model"], "model_uri")}});
  }
  if (flags.json)
    fmt::print("{}\n", models.dump(2));
  else if (rows.empty())
    fmt::print("no models yet: they come with the end of a project\n");
  else
    fmt::print("{}", DrawTable({"Project", "Name", "Round", "Accuracy", "Loss", "Model"}, rows));
  return 0;
}

int PredictCommand(int argc, char** argv) {
  CLI::App app("Ask a served model.", "umbel predict");
  app.footer(
      "Examples:\n  umbel predict rows.csv\n      A header and rows.\n"
      "  umbel predict rows.json --project 6b09eaaf\n"
      "      With dataframe_split, dataframe_records, instances or inputs, as MLflow has them.");
  ApiFlags flags;
  AddApiFlags(app, &flags);
  std::string file, project;
  app.add_option("FILE", file, "Input: .csv or .json")->required();
  app.add_option("--project", project, "Whose model, where several are served");
  if (const auto status = Parse(app, argc, argv)) return *status;
  const bool csv = file.ends_with(".csv");
  if (!csv && !file.ends_with(".json"))
    return Complain("predict", {Code::kInvalidArgument,
                                fmt::format("'{}' is neither .csv nor .json", file), 0});
  auto input = ReadFile(file, kInputMax);
  if (!input.ok()) return Complain("predict", input.error());
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("predict", api.error());
  const auto url = FindServed(*api, project);
  if (!url.ok()) return Complain("predict", url.error());
  const auto answer = Invoke(*url, csv ? "text/csv" : "application/json", *std::move(input));
  if (!answer.ok())
    return Complain("predict",
                    {answer.error().code,
                     fmt::format("{} does not answer: {}", *url, answer.error().message), 0});
  if (answer->status != 200)
    return Complain("predict", {Code::kUnknown,
                                fmt::format("the model at {} answers {}: {}", *url, answer->status,
                                            WhyNot(answer->body)),
                                0});
  fmt::print("{}\n", answer->body);
  return 0;
}

}  // namespace umbel::cli
