#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "cli/settings.h"
#include "commands.h"
#include "target.h"

namespace umbel::dataserver {
namespace {

constexpr const char* kFooter = R"(Examples:
  umbel-dataserver list --from grpc://127.0.0.1:11027
  umbel-dataserver list --from grpc://127.0.0.1:11027 --tag mnist --json)";

Result<std::vector<std::string>> AllTags(Client& client) {
  UMBEL_ASSIGN(const std::string text, client.Act("status", ""));
  std::vector<std::string> tags;
  const auto status = nlohmann::json::parse(text, nullptr, false);
  if (!status.is_object() || !status.contains("tags") || !status["tags"].is_object())
    return Fail(Code::kUnimplemented,
                "this data server does not tell its tags: name some by --tag");
  for (const auto& [tag, files] : status["tags"].items())
    if (!tag.empty()) tags.push_back(tag);
  return tags;
}

Result<std::vector<Listed>> List(const Target& target, std::vector<std::string> tags) {
  UMBEL_ASSIGN(const auto client, Client::Connect(target));
  if (tags.empty()) {
    UMBEL_ASSIGN(tags, AllTags(*client));
    if (tags.empty()) return std::vector<Listed>();
  }
  return client->List(tags);
}

void Print(const std::vector<Listed>& files, bool as_json) {
  if (as_json) {
    auto list = nlohmann::json::array();
    for (const Listed& file : files)
      list.push_back({{"name", file.name}, {"rows", file.rows}, {"bytes", file.bytes}});
    fmt::print("{}\n", list.dump());
    return;
  }
  if (files.empty()) {
    fmt::print("no files\n");
    return;
  }
  size_t width = 4;
  for (const Listed& file : files) width = std::max(width, file.name.size());
  fmt::print("{:<{}}  {:>10}  {:>12}\n", "FILE", width, "ROWS", "BYTES");
  for (const Listed& file : files)
    fmt::print("{:<{}}  {:>10}  {:>12}\n", file.name, width, file.rows, file.bytes);
}

}  // namespace

int ListCommand(int argc, char** argv) {
  CLI::App app("Show the files of a data server.", "umbel-dataserver list");
  app.footer(kFooter);
  std::string location;
  std::vector<std::string> tags;
  bool as_json = false;
  TargetFlags flags;
  app.add_option("--from", location, "Location of the data server")->required();
  app.add_option("--tag", tags, "Only files with this tag; may be given again");
  app.add_flag("--json", as_json, "Print JSON");
  flags.Declare(app);
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  const auto target = flags.For(location);
  if (!target.ok()) return Complain(app, target.error());
  const auto files = List(*target, tags);
  if (!files.ok()) return Complain(app, files.error());
  Print(*files, as_json);
  return 0;
}

}  // namespace umbel::dataserver
