#include <fmt/core.h>

#include "cli/settings.h"
#include "commands.h"
#include "dataserver/tables.h"
#include "dataset/names.h"
#include "target.h"

namespace umbel::dataserver {
namespace {

constexpr const char* kFooter = R"(Examples:
  umbel-dataserver put scans.parquet --tag hospital-a --to grpc://127.0.0.1:11027
  umbel-dataserver put rows.csv --tag sensors --to grpc+tls://node-1:11027 \
      --ssl-ca-certfile ca.pem --token-file token

The file is named TAG.DIGEST.parquet, by the MD5 of its content: who puts it twice has it once.)";

Result<std::string> Put(const std::string& path, const std::string& tag, const Target& target) {
  UMBEL_TRY(dataset::CheckTag(tag));
  UMBEL_ASSIGN(const auto table, LoadTable(path));
  UMBEL_ASSIGN(const std::string digest, DigestOfFile(path));
  UMBEL_ASSIGN(const auto client, Client::Connect(target));
  const std::string name = dataset::FileName(tag, digest);
  UMBEL_TRY(client->Put(name, *table));
  return fmt::format("{}  {} rows", name, table->num_rows());
}

}  // namespace

int PutCommand(int argc, char** argv) {
  CLI::App app("Send a file to a data server, under a tag.", "umbel-dataserver put");
  app.footer(kFooter);
  std::string path, tag, location;
  TargetFlags flags;
  app.add_option("file", path, "A .parquet or .csv file")->required();
  app.add_option("--tag", tag, "What learners ask for")->required();
  app.add_option("--to", location, "Location of the data server")->required();
  flags.Declare(app);
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  const auto target = flags.For(location);
  if (!target.ok()) return Complain(app, target.error());
  const auto put = Put(path, tag, *target);
  if (!put.ok()) return Complain(app, put.error());
  fmt::print("{}\n", *put);
  return 0;
}

}  // namespace umbel::dataserver
