#include "cli/api_client.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>

#include "base/file.h"
#include "cli/daemon.h"
#include "cli/password.h"
#include "http/call.h"

namespace umbel::cli {
namespace {

constexpr size_t kAnswerMax = size_t{256} << 20;

std::string Stripped(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '/')) text.pop_back();
  return text;
}

Code CodeOf(int status) {
  switch (status) {
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kFailedPrecondition;
    case 422:
      return Code::kInvalidArgument;
    case 503:
      return Code::kUnavailable;
    default:
      return Code::kUnknown;
  }
}

}  // namespace

void AddApiFlags(CLI::App& app, ApiFlags* flags) {
  app.add_option("--state", flags->state, "State folder of `umbel up` [$UMBEL_HOME/up]")
      ->envname("UMBEL_UP_STATE");
  app.add_option("--api", flags->url, "Address of its API, http://HOST:PORT")->envname("UMBEL_API");
  app.add_option("--user", flags->user, "Account to log in with")
      ->envname("UMBEL_USER")
      ->capture_default_str();
  app.add_option("--password-file", flags->password_file,
                 "File with its password; -: standard input [Admin's first one, or asks]")
      ->envname("UMBEL_PASSWORD_FILE");
  app.add_flag("--json", flags->json, "As JSON");
}

std::string UpDirectory() { return UmbelHome() + "/up"; }

Result<ApiClient> ApiClient::Open(const ApiFlags& flags) {
  const std::string state = flags.state.empty() ? UpDirectory() : flags.state;
  ApiClient client;
  client.url_ = flags.url;
  if (client.url_.empty()) {
    const auto told = ReadFile(state + "/address", 4096);
    if (!told.ok())
      return Fail(
          Code::kNotFound,
          fmt::format("no `umbel up` has run with the state folder '{}': start one, or name "
                      "its folder with --state",
                      state));
    client.url_ = Stripped(*told);
  }
  client.user_ = flags.user;
  // Admin's first one is in the state's folder, until it is changed.
  std::string file = flags.password_file;
  const std::string first = state + "/admin.password";
  std::error_code ignored;
  if (file.empty() && flags.user == ApiFlags().user && std::filesystem::exists(first, ignored))
    file = first;
  UMBEL_ASSIGN(client.password_,
               ReadPassword(file, fmt::format("Password of {}", flags.user), "--password-file"));
  constexpr std::string_view kScheme = "http://";
  const std::string_view rest =
      std::string_view(client.url_).substr(std::min(client.url_.size(), kScheme.size()));
  const size_t colon = rest.rfind(':');
  unsigned port = 0;
  if (client.url_.starts_with(kScheme) && colon != std::string_view::npos)
    std::from_chars(rest.data() + colon + 1, rest.data() + rest.size(), port);
  if (port == 0 || port > 65535)
    return Fail(Code::kInvalidArgument, fmt::format("'{}' is not http://HOST:PORT", client.url_));
  client.host_ = rest.substr(0, colon);
  client.port_ = static_cast<uint16_t>(port);
  return client;
}

Result<nlohmann::json> ApiClient::Ask(std::string_view method, const std::string& path,
                                      const std::string& body, std::chrono::seconds timeout) {
  const bool fresh = token_.empty();
  if (fresh) UMBEL_TRY(LogIn());
  auto answer = Once(method, path, body, timeout);
  // What is followed for long outlives its token.
  if (!answer.ok() && answer.error().code == Code::kUnauthenticated && !fresh) {
    UMBEL_TRY(LogIn());
    answer = Once(method, path, body, timeout);
  }
  return answer;
}

Status ApiClient::LogIn() {
  token_.clear();
  const nlohmann::json words = {{"name", user_}, {"password", password_}};
  UMBEL_ASSIGN(const nlohmann::json told,
               Once("POST", "login", words.dump(), std::chrono::seconds(30)));
  if (!told.contains("token") || !told["token"].is_string())
    return Fail(Code::kUnknown, fmt::format("{} gives no token: is it umbel's API?", url_));
  token_ = told["token"].get<std::string>();
  return {};
}

Result<nlohmann::json> ApiClient::Once(std::string_view method, const std::string& path,
                                       const std::string& body,
                                       std::chrono::seconds timeout) const {
  http::ClientOptions options;
  options.host = host_;
  options.port = port_;
  options.connect_timeout = std::chrono::seconds(5);
  http::ClientRequest request(method, "/api/v1/" + path);
  if (!token_.empty()) request.extra_headers = fmt::format("Authorization: Bearer {}\r\n", token_);
  request.body = body;
  if (!body.empty()) request.content_type = "application/json";
  request.timeout = timeout;
  const auto answer = http::CallOnce(std::move(options), request, kAnswerMax);
  if (!answer.ok())
    return Fail(Code::kUnavailable,
                fmt::format("`umbel up` does not answer at {}: {}", url_, answer.error().message));
  auto json = nlohmann::json::parse(answer->body, nullptr, false);
  const int status = answer->status;
  if (status >= 200 && status < 300 && !json.is_discarded()) return json;
  const std::string detail = json.is_object() ? json.value("detail", "") : "";
  return Fail(CodeOf(status), detail.empty() ? fmt::format("{} answers {}", url_, status) : detail);
}

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain =
        std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace umbel::cli
