#include "flower/fab_config.h"

#include <algorithm>

#include "flower/errors.h"
#include "flower/toml.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::Quote;

constexpr size_t kNameMax = 128;

tl::unexpected<Error> Bad(std::string message) {
  return Fail(Code::kInvalidArgument, "pyproject.toml: " + std::move(message),
              wire::kInvalidRunConfig);
}

/// Walks a path of tables; nullptr if there is none.
const TomlValue* Table(const TomlValue* table, std::initializer_list<std::string_view> path) {
  for (const std::string_view part : path)
    if (table != nullptr) table = table->Find(part);
  return table != nullptr && table->kind == TomlKind::kTable ? table : nullptr;
}

Result<std::string> Text(const TomlValue& table, std::string_view section, std::string_view key) {
  const TomlValue* value = table.Find(key);
  if (value == nullptr) return Bad(fmt::format("[{}] has no {}", section, key));
  if (value->kind != TomlKind::kString)
    return Bad(fmt::format("{} in [{}] is not a string", key, section));
  return value->text;
}

/// Publisher, name and version become parts of one folder's name at every site.
Result<std::string> PathPart(const TomlValue& table, std::string_view section,
                             std::string_view key) {
  // `version = 1` is no string, but as good as one: sites write it into the folder's name too.
  const TomlValue* value = table.Find(key);
  std::string text;
  if (value != nullptr && value->kind == TomlKind::kInteger) {
    text = std::to_string(value->integer);
  } else {
    UMBEL_ASSIGN(text, Text(table, section, key));
  }
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '/' && c != '\\';
  });
  if (text.empty() || text.size() > kNameMax || text[0] == '.' || !plain)
    return Bad(
        fmt::format("{} {} in [{}] is not a name of 1 to {} characters without '/', '\\' "
                    "or a leading '.'",
                    key, Quote(text), section, kNameMax));
  return text;
}

Result<std::string> Component(const TomlValue& components, std::string_view key, bool required) {
  constexpr std::string_view kSection = "tool.flwr.app.components";
  if (!required && components.Find(key) == nullptr) return std::string();
  UMBEL_ASSIGN(std::string text, Text(components, kSection, key));
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size())
    return Bad(
        fmt::format("{} {} in [{}] is not \"module:attribute\"", key, Quote(text), kSection));
  return text;
}

/// fab-include and fab-exclude: absent, or a list of non-empty strings.
Status CheckPatterns(const TomlValue& app, std::string_view key) {
  const TomlValue* patterns = app.Find(key);
  if (patterns == nullptr) return {};
  const auto is_pattern = [](const TomlValue& item) {
    return item.kind == TomlKind::kString &&
           item.text.find_first_not_of(" \t\r\n") != std::string::npos;
  };
  if (patterns->items.empty() ||
      !std::all_of(patterns->items.begin(), patterns->items.end(), is_pattern))
    return Bad(fmt::format("{} in [tool.flwr.app] is not a list of non-empty strings", key));
  return {};
}

/// Format 1 asks for more (licence, version bounds); `flwr build` has checked that.
Status CheckFormat(const TomlValue& app) {
  const TomlValue* version = app.Find("fab-format-version");
  if (version == nullptr) return {};
  if (version->kind != TomlKind::kInteger || version->integer < 0 || version->integer > 1)
    return Bad("fab-format-version in [tool.flwr.app] is not 0 or 1");
  return {};
}

Result<FabConfig> Read(const TomlValue& document) {
  FabConfig fab;
  const TomlValue* project = Table(&document, {"project"});
  if (project == nullptr) return Bad("there is no [project]");
  UMBEL_ASSIGN(fab.name, PathPart(*project, "project", "name"));
  UMBEL_ASSIGN(fab.version, PathPart(*project, "project", "version"));

  const TomlValue* app = Table(&document, {"tool", "flwr", "app"});
  if (app == nullptr) return Bad("there is no [tool.flwr.app]");
  UMBEL_ASSIGN(fab.publisher, PathPart(*app, "tool.flwr.app", "publisher"));
  UMBEL_TRY(CheckPatterns(*app, "fab-include"));
  UMBEL_TRY(CheckPatterns(*app, "fab-exclude"));
  UMBEL_TRY(CheckFormat(*app));

  const TomlValue* components = Table(app, {"components"});
  if (components == nullptr) return Bad("there is no [tool.flwr.app.components]");
  UMBEL_ASSIGN(fab.agentapp, Component(*components, "agentapp", false));
  const bool agent = !fab.agentapp.empty();
  UMBEL_ASSIGN(fab.serverapp, Component(*components, "serverapp", !agent));
  UMBEL_ASSIGN(fab.clientapp, Component(*components, "clientapp", !agent));

  if (app->Find("config") == nullptr) return fab;
  const TomlValue* config = Table(app, {"config"});
  if (config == nullptr) return Bad("config in [tool.flwr.app] is not a table");
  const Status flat = FlattenConfig(*config, "[tool.flwr.app.config]", fab.config);
  if (!flat.ok()) return Bad(flat.error().message);
  return fab;
}

}  // namespace

Result<FabConfig> ParseFabConfig(std::string_view toml) {
  const auto document = ParseToml(toml);
  if (!document.has_value()) return Bad(document.error().message);
  return Read(*document);
}

}  // namespace umbel::flower
