// `umbel data`, `models` and `predict`: what goes into training, and what comes out of it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "base/file.h"
#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/programs.h"
#include "cli/progress.h"
#include "cli/settings.h"
#include "cli/table.h"
#include "dataset/names.h"
#include "http/call.h"
#include "manager/child.h"

namespace umbel::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kHold{20};
constexpr size_t kInputMax = size_t{256} << 20;
constexpr const char* kNoServers =
    "no data servers to be seen: they come with the first mock data or the first project with "
    "data_tags, and only admins see them";
constexpr const char* kDataFooter = R"(Examples:
  umbel data mock --dataset mnist --partitions 2 --tag mnist
      Fashion-MNIST in two halves, one for each learner node.
  umbel data mock list
  umbel data mock rm mockdpe3afed0047b0
      Ends a provider and forgets it; what it has put stays.
  umbel data
      Where the data servers are.
  umbel data list --tag mnist
  umbel data put scans.parquet --tag hospital-a --node node-1
      A file of one's own, .parquet or .csv, for the learners of that node.
  umbel data drop mnist
      Removes all files with this tag, from all nodes or one (--node). A name of `umbel data list`
      removes that file. Learners that train keep what they have.)";

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
  std::string customer;
  std::string dataset = "mnist";
  int64_t partitions = 1;
  std::string tag;
};

/// What changes here: the version after the one that is known, once there is one.
Result<uint64_t> AwaitChange(ApiClient& api, uint64_t version) {
  UMBEL_ASSIGN(const json change,
               api.Get(fmt::format("changes?since={}&wait={}", version, kHold.count()),
                       kHold + std::chrono::seconds(15)));
  return change.value("version", uint64_t{0});
}

Result<int> MakeMock(ApiClient& api, const ApiFlags& flags, const Mock& mock) {
  const json document = {{"customerID", mock.customer},
                         {"mock_data_configuration",
                          {{"dataset_name", mock.dataset},
                           {"number_of_partitions", mock.partitions},
                           {"data_tag", mock.tag}}}};
  UMBEL_ASSIGN(const json made,
               api.Ask("POST", "mocks", document.dump(), std::chrono::seconds(30)));
  const std::string name = Text(made, "service");
  std::string state;
  Progress progress(name + " waits for data servers");
  for (uint64_t version = 0; state != "completed" && state != "failed";) {
    UMBEL_ASSIGN(const json got, api.Get("services"));
    state = StateOf(got["services"], name);
    if (!state.empty()) progress.Say(fmt::format("{} is {}", name, state));
    if (state == "completed" || state == "failed") break;
    UMBEL_ASSIGN(version, AwaitChange(api, version));
  }
  UMBEL_ASSIGN(const json log, api.Get("services/" + Escape(name) + "/logs"));
  if (flags.json)
    fmt::print("{}\n", made.dump(2));
  else
    fmt::print("{}", Text(log, "text"));
  return state == "completed" ? 0 : 1;
}

Result<int> ListMocks(ApiClient& api, const ApiFlags& flags) {
  UMBEL_ASSIGN(const json got, api.Get("services"));
  json mocks = json::array();
  std::vector<std::vector<Cell>> rows;
  for (const json& service : got["services"]) {
    if (Text(service, "namespace") != "mockdp") continue;
    mocks.push_back(service);
    const std::string state = StateOf(got["services"], Text(service, "name"));
    rows.push_back({{Text(service, "name")},
                    {Text(service, "customer")},
                    {state.empty() ? "waits for data servers" : state},
                    {Ago(Text(service, "created_at"))}});
  }
  if (flags.json)
    fmt::print("{}\n", mocks.dump(2));
  else if (rows.empty())
    fmt::print("no mock data providers: `umbel data mock --tag TAG` makes one\n");
  else
    fmt::print("{}", DrawTable({"Provider", "Customer", "State", "Made"}, rows));
  return 0;
}

Result<int> RemoveMock(ApiClient& api, const ApiFlags& flags, const std::string& name) {
  UMBEL_ASSIGN(const json told,
               api.Ask("DELETE", "mocks/" + Escape(name), "", std::chrono::seconds(30)));
  const Progress progress(name + " is being ended");
  for (uint64_t version = 0;;) {
    UMBEL_ASSIGN(const json got, api.Get("services"));
    const json& services = got["services"];
    if (std::none_of(services.begin(), services.end(),
                     [&](const json& each) { return Text(each, "name") == name; }))
      break;
    UMBEL_ASSIGN(version, AwaitChange(api, version));
  }
  if (flags.json)
    fmt::print("{}\n", told.dump(2));
  else
    fmt::print(
        "{} is gone; what it has put stays on the nodes: `umbel data list` shows it, `umbel data "
        "drop TAG` removes it\n",
        name);
  return 0;
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
    fmt::print("{}\n", kNoServers);
  else
    fmt::print("{}`umbel data list` shows what they have.\n",
               DrawTable({"Node", "State", "Location"}, rows));
  return 0;
}

struct DataServer {
  std::string node;
  std::string location;
};

/// Those of the nodes, or of one.
Result<std::vector<DataServer>> Servers(ApiClient& api, const std::string& node) {
  UMBEL_ASSIGN(const json got, api.Get("services"));
  std::vector<DataServer> servers;
  std::string nodes;
  for (const json& service : got["services"]) {
    if (Text(service, "namespace") != "mldata" || service["instances"].empty()) continue;
    const std::string at = Text(service["instances"][0], "node");
    nodes += (nodes.empty() ? "" : ", ") + at;
    if (node.empty() || node == at) servers.push_back({at, Text(service, "url")});
  }
  if (nodes.empty()) return Fail(Code::kNotFound, kNoServers);
  if (servers.empty())
    return Fail(Code::kInvalidArgument,
                fmt::format("--node: '{}' has no data server; {} have", node, nodes));
  return servers;
}

/// What umbel-dataserver, which alone speaks Arrow, prints.
Result<std::string> RunDataServer(std::vector<std::string> arguments) {
  UMBEL_ASSIGN(const std::string own, OwnProgram());
  const std::string program = DataServerBeside(own);
  if (program.empty())
    return Fail(Code::kFailedPrecondition, "umbel-dataserver is not beside umbel");
  manager::ChildRequest request;
  request.arguments = std::move(arguments);
  request.arguments.insert(request.arguments.begin(), program);
  request.environment = manager::ChildEnvironment();
  request.limit = std::chrono::hours(6);
  request.output_max = size_t{64} << 20;
  UMBEL_ASSIGN(manager::ChildEnd end, manager::RunChild(request, {}));
  if (end.status == 0) return std::move(end.output);
  return Fail(Code::kUnknown, end.errors.substr(0, end.errors.find_last_not_of('\n') + 1));
}

struct Files {
  std::string node;  // "": all
  std::string tag;   // "": all
};

/// Every file: node, location, name, rows, bytes.
Result<json> FindFiles(ApiClient& api, const Files& which) {
  UMBEL_ASSIGN(const std::vector<DataServer> servers, Servers(api, which.node));
  json files = json::array();
  Progress progress("asking data servers");
  for (const DataServer& server : servers) {
    progress.Say("asking the data server of " + server.node);
    std::vector<std::string> arguments = {"list", "--from", server.location, "--json"};
    if (!which.tag.empty()) arguments.insert(arguments.end(), {"--tag", which.tag});
    UMBEL_ASSIGN(const std::string text, RunDataServer(std::move(arguments)));
    const json listed = json::parse(text, nullptr, false);
    if (!listed.is_array())
      return Fail(Code::kUnknown,
                  fmt::format("the data server of {} answers in other words", server.node));
    for (json file : listed) {
      file["node"] = server.node;
      file["location"] = server.location;
      files.push_back(std::move(file));
    }
  }
  return files;
}

Result<int> ListFiles(ApiClient& api, const ApiFlags& flags, const Files& which) {
  UMBEL_ASSIGN(const json files, FindFiles(api, which));
  if (flags.json) {
    fmt::print("{}\n", files.dump(2));
    return 0;
  }
  std::vector<std::vector<Cell>> rows;
  for (const json& file : files)
    rows.push_back({{Text(file, "node")},
                    {Text(file, "name")},
                    {std::to_string(file.value("rows", uint64_t{0}))},
                    {std::to_string(file.value("bytes", uint64_t{0}))}});
  if (rows.empty())
    fmt::print("no files{}\n", which.tag.empty() ? "" : " with the tag " + which.tag);
  else
    fmt::print("{}", DrawTable({"Node", "File", "Rows", "Bytes"}, rows));
  return 0;
}

/// Files of a tag, or one by its name, on all nodes or one.
Result<int> DropFiles(ApiClient& api, const ApiFlags& flags, const std::string& what,
                      const Files& where) {
  UMBEL_ASSIGN(const json files, FindFiles(api, where));
  json dropped = json::array();
  const Progress progress("dropping");
  for (const json& file : files) {
    const std::string name = Text(file, "name");
    if (name != what && dataset::TagOf(name) != what) continue;
    UMBEL_TRY(RunDataServer({"drop", name, "--from", Text(file, "location")}));
    if (!flags.json) fmt::print("dropped {} from {}\n", name, Text(file, "node"));
    std::fflush(stdout);
    dropped.push_back(file);
  }
  if (dropped.empty())
    return Fail(Code::kNotFound,
                fmt::format("no file has the tag or the name '{}': `umbel data list` shows which "
                            "there are",
                            what));
  if (flags.json) fmt::print("{}\n", dropped.dump(2));
  return 0;
}

Result<int> PutFile(ApiClient& api, const ApiFlags& flags, const std::string& file,
                    const Files& where) {
  UMBEL_ASSIGN(const std::vector<DataServer> servers, Servers(api, where.node));
  if (servers.size() > 1) {
    std::string nodes;
    for (const DataServer& each : servers) nodes += (nodes.empty() ? "" : ", ") + each.node;
    return Fail(Code::kInvalidArgument,
                fmt::format("--node: which of {} is it for? Data stays where it is put", nodes));
  }
  const Progress progress(fmt::format("sending {} to {}", file, servers[0].node));
  UMBEL_ASSIGN(const std::string told,
               RunDataServer({"put", file, "--tag", where.tag, "--to", servers[0].location}));
  if (flags.json)
    fmt::print("{}\n", json({{"node", servers[0].node},
                             {"location", servers[0].location},
                             {"tag", where.tag},
                             {"file", file}})
                           .dump(2));
  else
    fmt::print("{}", told);
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
  CLI::App app("Data of learner nodes: their data servers, files and mock data.", "umbel data");
  app.footer(kDataFooter);
  app.require_subcommand(0, 1);
  app.fallthrough();
  ApiFlags flags;
  AddApiFlags(app, &flags);
  Mock mock;
  std::string name;
  Files files;
  app.add_subcommand("servers", "Where the data servers are");
  CLI::App* fill = app.add_subcommand("mock", "Fill them with a known data set");
  fill->add_option("--dataset", mock.dataset, "mnist, fashion-mnist or digits")
      ->capture_default_str();
  fill->add_option("--partitions", mock.partitions, "Into how many parts it is cut")
      ->capture_default_str();
  fill->add_option("--tag", mock.tag, "What projects ask for it by, in data_tags");
  fill->add_option("--customer", mock.customer, "Whose it is [who asks]");
  fill->require_subcommand(0, 1);
  CLI::App* mocks = fill->add_subcommand("list", "Providers of mock data");
  CLI::App* unmock = fill->add_subcommand("rm", "End a provider and forget it");
  unmock->add_option("PROVIDER", name, "Its name")->required();
  CLI::App* list = app.add_subcommand("list", "Files of the data servers");
  CLI::App* put = app.add_subcommand("put", "Send a file to a node's data server");
  CLI::App* drop = app.add_subcommand("drop", "Remove files from data servers");
  put->add_option("FILE", name, ".parquet or .csv")->required();
  drop->add_option("TAG", name, "Their tag, or the name of one")->required();
  list->add_option("--tag", files.tag, "Only with this tag");
  put->add_option("--tag", files.tag, "What projects ask for it by, in data_tags")->required();
  for (CLI::App* each : {list, put, drop})
    each->add_option("--node", files.node, "Only of this node");
  if (const auto status = Parse(app, argc, argv)) return *status;
  const bool fills = fill->parsed() && !mocks->parsed() && !unmock->parsed();
  if (fills && mock.tag.empty())
    return Complain("data mock", {Code::kInvalidArgument,
                                  "--tag is missing: what projects ask for the data by, in "
                                  "data_tags",
                                  0});
  if (mock.customer.empty()) mock.customer = flags.user;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain("data", api.error());
  const auto end = mocks->parsed()    ? ListMocks(*api, flags)
                   : unmock->parsed() ? RemoveMock(*api, flags, name)
                   : fills            ? MakeMock(*api, flags, mock)
                   : list->parsed()   ? ListFiles(*api, flags, files)
                   : put->parsed()    ? PutFile(*api, flags, name, files)
                   : drop->parsed()   ? DropFiles(*api, flags, name, files)
                                      : ShowServers(*api, flags);
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
  const Progress progress("waiting for the model at " + *url);
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
