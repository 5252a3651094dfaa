#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "base/file.h"
#include "base/log.h"
#include "cli/daemon.h"
#include "cli/settings.h"
#include "commands.h"
#include "dataserver/server.h"

namespace umbel::dataserver {
namespace {

constexpr const char* kFooter = R"(Examples:
  umbel-dataserver serve
      Serve 127.0.0.1, on the first free port from 11027 upward, keeping files in ~/.umbel/data.
  umbel-dataserver serve --port 0 --data-dir /srv/node-1 --ready-file /run/node-1.ready
      Let the system pick a port; the file says which once calls are answered.
  umbel-dataserver serve --host 0.0.0.0 --token-file tokens \
      --ssl-certfile server.pem --ssl-keyfile server.key
      Serve a network by TLS to those who have one of the tokens.
  umbel-dataserver serve --host 172.17.0.1 --allow-anonymous
      Where FLOps' own learners look for it, as open as the original.

When it is ready it prints `ready grpc://HOST:PORT`. SIGTERM ends it when running calls have ended,
or after --grace seconds. Settings also come from --config FILE ([dataserver] table) and from the
environment (UMBEL_DATASERVER_PORT, ...). A flag wins over the environment, that over the file.)";

constexpr int64_t kMost = int64_t{1} << 50;

struct Values {
  std::string host = "127.0.0.1";
  int64_t port = -1;
  std::string data_dir;
  std::string learner_sockets;
  int64_t learners_max = 64;
  std::string token_file;
  bool allow_anonymous = false;
  std::string ssl_certfile, ssl_keyfile;
  int64_t quota_bytes, quota_files, put_bytes, put_rows, puts;
  int64_t grace = 10;
  std::string ready_file;
  std::string log_level = "info";

  Values() {
    const Quotas quotas;
    quota_bytes = static_cast<int64_t>(quotas.bytes_max);
    quota_files = static_cast<int64_t>(quotas.files_max);
    put_bytes = static_cast<int64_t>(quotas.put_bytes_max);
    put_rows = static_cast<int64_t>(quotas.put_rows_max);
    puts = static_cast<int64_t>(quotas.puts_max);
  }
};

void Declare(cli::Settings& s, Values& v) {
  s.Text(&v.host, "host", "Address to listen on");
  s.Number(
      &v.port, "port",
      "Port to listen on; 0 lets the system pick, -1 takes the first free one from 11027 upward",
      -1, 65535);
  s.Text(&v.data_dir, "data-dir", "Folder of the files [$UMBEL_HOME/data]");
  s.Text(&v.learner_sockets, "learner-sockets",
         "Folder for the sockets of learners [in the data folder]; its path must be short");
  s.Number(&v.learners_max, "learners-max", "Sockets of learners at once", 0, 10'000);
  s.Text(&v.token_file, "token-file", "Only who sends a token of this file (one a line) is served");
  s.Flag(&v.allow_anonymous, "allow-anonymous",
         "Beyond loopback too, serve whoever reaches the port");
  s.Text(&v.ssl_certfile, "ssl-certfile", "PEM certificate of this server, with its chain");
  s.Text(&v.ssl_keyfile, "ssl-keyfile", "PEM private key of this server");
  s.Number(&v.quota_bytes, "quota-bytes", "Bytes of all files", 0, kMost);
  s.Number(&v.quota_files, "quota-files", "Number of files", 0, 1'000'000);
  s.Number(&v.put_bytes, "put-bytes", "Bytes of one file", 0, kMost);
  s.Number(&v.put_rows, "put-rows", "Rows of one file", 0, kMost);
  s.Number(&v.puts, "puts-max", "Files that are put at once", 1, 1000);
  s.Number(&v.grace, "grace", "Seconds that running calls have to end after SIGTERM", 0, 3600);
  s.Text(&v.ready_file, "ready-file", "Write the location to this file once calls are answered");
  s.Choice(&v.log_level, "log-level", "Least severe messages to log",
           {"debug", "info", "warning", "error"});
}

Options ToOptions(const Values& v) {
  Options o;
  o.host = v.host;
  o.port = static_cast<int32_t>(v.port);
  o.data_dir = v.data_dir.empty() ? cli::UmbelHome() + "/data" : v.data_dir;
  o.learner_sockets = v.learner_sockets;
  o.learners_max = static_cast<uint64_t>(v.learners_max);
  o.token_file = v.token_file;
  o.allow_anonymous = v.allow_anonymous;
  o.tls_certificate = v.ssl_certfile;
  o.tls_key = v.ssl_keyfile;
  o.quotas = {static_cast<uint64_t>(v.quota_bytes), static_cast<uint64_t>(v.quota_files),
              static_cast<uint64_t>(v.put_bytes), static_cast<uint64_t>(v.put_rows),
              static_cast<uint64_t>(v.puts)};
  return o;
}

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel-dataserver serve: %s\n", error.message.c_str());
  return error.code == Code::kInvalidArgument ? cli::kBadUsage : 1;
}

Status Announce(const Server& server, const std::string& ready_file) {
  fmt::print("ready {}\n", server.location());
  std::fflush(stdout);
  if (ready_file.empty()) return {};
  return WriteFileAtomic(ready_file, server.location() + "\n");
}

}  // namespace

int ServeCommand(int argc, char** argv) {
  CLI::App app("Keep Parquet files and give them to learners, by Arrow Flight.",
               "umbel-dataserver serve");
  app.footer(kFooter);
  app.get_formatter()->column_width(44);
  Values values;
  cli::Settings settings(app, "dataserver");
  Declare(settings, values);
  std::string config;
  bool print = false;
  app.add_option("--config", config, "TOML file with a [dataserver] table")->take_last();
  app.add_flag("--print-config", print, "Show every setting and where it came from, then end");
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  if (const Status resolved = settings.Resolve(config); !resolved.ok())
    return Complain(resolved.error());
  if (print) {
    std::fputs(settings.Print().c_str(), stdout);
    return 0;
  }
  const Options options = ToOptions(values);
  if (const Status valid = Validate(options); !valid.ok()) return Complain(valid.error());
  LogOptions log;
  log.level = cli::LevelOf(values.log_level);
  if (const Status started = cli::BecomeDaemon(log); !started.ok())
    return Complain(started.error());
  auto server = Server::Start(options);
  if (!server.ok()) return Complain(server.error());
  LogInfo("data server is ready",
          {{"location", (*server)->location()}, {"data", options.data_dir}});
  if (const Status announced = Announce(**server, values.ready_file); !announced.ok())
    return Complain(announced.error());
  cli::AwaitSignal();
  (*server)->Stop(std::chrono::seconds(values.grace));
  LogInfo("stopped", {});
  return 0;
}

}  // namespace umbel::dataserver
