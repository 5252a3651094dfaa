#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "cli/settings.h"
#include "commands.h"
#include "target.h"

namespace umbel::dataserver {
namespace {

constexpr int kTemporary = 75;  // EX_TEMPFAIL: nobody answers there yet

constexpr const char* kAssignFooter = R"(Example:
  umbel-dataserver assign --project p --learner flearner1.0 --tag mnist --of 2 \
      --to grpc://127.0.0.1:11027
      Prints, as JSON, where this learner finds its half: a Unix socket that serves nothing else.

Asked again, the same learner has the same part.)";
constexpr const char* kReleaseFooter = R"(Example:
  umbel-dataserver release --project p --learner flearner1.0 --to grpc://127.0.0.1:11027)";

struct Values {
  std::string project;
  std::string learner;
  std::string location;
  TargetFlags flags;

  void Declare(CLI::App& app) {
    app.add_option("--project", project, "The project")->required();
    app.add_option("--learner", learner, "The learner")->required();
    app.add_option("--to", location, "Location of the data server")->required();
    flags.Declare(app);
  }
};

int Ask(const CLI::App& app, const Values& v, const char* action, const nlohmann::json& claim) {
  const auto target = v.flags.For(v.location);
  if (!target.ok()) return Complain(app, target.error());
  const auto client = Client::Connect(*target);
  if (!client.ok()) return Complain(app, client.error());
  const auto told = (*client)->Act(action, claim.dump());
  if (!told.ok()) {
    const int status = Complain(app, told.error());
    return told.error().code == Code::kUnavailable ? kTemporary : status;
  }
  fmt::print("{}\n", *told);
  return 0;
}

}  // namespace

int AssignCommand(int argc, char** argv) {
  CLI::App app("Give a learner its part of the data, by a socket of its own.",
               "umbel-dataserver assign");
  app.footer(kAssignFooter);
  Values v;
  std::vector<std::string> tags;
  uint32_t of = 1;
  v.Declare(app);
  app.add_option("--tag", tags, "A tag of the data; may be repeated")->required();
  app.add_option("--of", of, "How many learners of the project this node has")->required();
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  return Ask(app, v, "assign",
             {{"project", v.project}, {"learner", v.learner}, {"tags", tags}, {"of", of}});
}

int ReleaseCommand(int argc, char** argv) {
  CLI::App app("Take a learner's part back; it may be given again.", "umbel-dataserver release");
  app.footer(kReleaseFooter);
  Values v;
  v.Declare(app);
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  return Ask(app, v, "release", {{"project", v.project}, {"learner", v.learner}});
}

}  // namespace umbel::dataserver
