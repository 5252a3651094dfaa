// `umbel accounts`: who may log in to a running `umbel up`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/password.h"
#include "cli/settings.h"
#include "cli/table.h"

namespace umbel::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kPatience{30};
constexpr const char* kNewPassword = "--new-password-file";
constexpr const char* kFooter = R"(Examples:
  umbel accounts list
  umbel accounts add alice
      Asks for a password, twice. The account is a customer: alice sees what is of customerID alice.
  umbel accounts add bob --admin --new-password-file bob.password
      Without asking. An admin sees everything and makes accounts; - reads standard input.
  umbel project list --user alice --password-file alice.password
      As alice; also by UMBEL_USER and UMBEL_PASSWORD_FILE.
  umbel accounts passwd alice
      Another password, which logs alice out everywhere. Without a name: of one's own.
  umbel accounts rm alice
      Projects of alice stay; an admin may stop and remove them.)";

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel accounts: %s\n", error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

Result<std::string> NewPassword(const std::string& name, const std::string& file) {
  UMBEL_ASSIGN(std::string password,
               ReadPassword(file, fmt::format("New password of {}", name), kNewPassword));
  if (!file.empty()) return password;
  UMBEL_ASSIGN(const std::string again, ReadPassword("", "The same again", kNewPassword));
  if (again == password) return password;
  return Fail(Code::kInvalidArgument, "the two passwords differ: nothing was changed");
}

Result<json> List(ApiClient& api) {
  UMBEL_ASSIGN(json got, api.Get("accounts"));
  return std::move(got["accounts"]);
}

void Show(const json& accounts) {
  std::vector<std::vector<Cell>> rows;
  for (const json& account : accounts)
    rows.push_back({{account.value("name", "")}, {account.value("admin", false) ? "yes" : "no"}});
  fmt::print("{}", DrawTable({"Account", "Admin"}, rows));
}

struct Wish {
  std::string verb;
  std::string name;
  std::string file;  // of the new password
  bool admin = false;
};

Result<int> Do(ApiClient& api, const ApiFlags& flags, const Wish& wish) {
  json told;
  if (wish.verb == "list") {
    UMBEL_ASSIGN(told, List(api));
    if (!flags.json) {
      Show(told);
      return 0;
    }
  } else if (wish.verb == "rm") {
    UMBEL_ASSIGN(told, api.Ask("DELETE", "accounts/" + Escape(wish.name), "", kPatience));
  } else if (wish.verb == "add") {
    UMBEL_ASSIGN(const std::string password, NewPassword(wish.name, wish.file));
    const json body = {{"name", wish.name}, {"password", password}, {"admin", wish.admin}};
    UMBEL_ASSIGN(told, api.Ask("POST", "accounts", body.dump(), kPatience));
  } else {
    // An admin's PUT would make one that is not there.
    if (wish.name != flags.user) {
      UMBEL_ASSIGN(const json accounts, List(api));
      if (std::none_of(accounts.begin(), accounts.end(),
                       [&](const json& each) { return each.value("name", "") == wish.name; }))
        return Fail(
            Code::kNotFound,
            fmt::format("there is no account '{}': `umbel accounts add` makes it", wish.name));
    }
    UMBEL_ASSIGN(const std::string password, NewPassword(wish.name, wish.file));
    const json body = {{"password", password}};
    UMBEL_ASSIGN(told, api.Ask("PUT", "accounts/" + Escape(wish.name), body.dump(), kPatience));
  }
  if (flags.json)
    fmt::print("{}\n", told.dump(2));
  else if (wish.verb == "rm")
    fmt::print("account {} is gone\n", wish.name);
  else if (wish.verb == "add")
    fmt::print("account {} is made{}; it logs in with --user {} --password-file FILE\n", wish.name,
               wish.admin ? ", an admin" : "", wish.name);
  else
    fmt::print("account {} has another password; whoever was logged in with it is not any more\n",
               wish.name);
  return 0;
}

}  // namespace

int AccountsCommand(int argc, char** argv) {
  CLI::App app("Accounts of a running `umbel up`: customers and admins.", "umbel accounts");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  ApiFlags flags;
  AddApiFlags(app, &flags);
  Wish wish;
  app.add_subcommand("list", "All accounts");
  CLI::App* add = app.add_subcommand("add", "Make an account");
  CLI::App* passwd = app.add_subcommand("passwd", "Give one another password");
  CLI::App* remove = app.add_subcommand("rm", "Remove an account");
  add->add_option("NAME", wish.name, "Its name, which is the customerID of its projects")
      ->required();
  add->add_flag("--admin", wish.admin, "It may see and do everything");
  passwd->add_option("NAME", wish.name, "Whose [one's own]");
  remove->add_option("NAME", wish.name, "Whose")->required();
  for (CLI::App* each : {add, passwd})
    each->add_option(kNewPassword, wish.file,
                     "File with the new password in its first line; -: standard input [asks]");
  if (const auto status = Parse(app, argc, argv)) return *status;
  wish.verb = app.get_subcommands().front()->get_name();
  if (wish.name.empty()) wish.name = flags.user;
  auto api = ApiClient::Open(flags);
  if (!api.ok()) return Complain(api.error());
  const auto end = Do(*api, flags, wish);
  return end.ok() ? *end : Complain(end.error());
}

}  // namespace umbel::cli
