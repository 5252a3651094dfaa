#include "cli/settings.h"

#include <toml++/toml.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/file.h"

namespace umbel::cli {
namespace {

constexpr size_t kFileMax = size_t{1} << 20;

std::string EnvironmentName(const std::string& section, std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  std::string out = "UMBEL_" + section + "_" + name;
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

std::vector<std::string> SplitWords(std::string_view text) {
  std::vector<std::string> words;
  size_t at = 0;
  while ((at = text.find_first_not_of(" ,", at)) != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(" ,", at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

/// The value of a TOML node as the words a flag would take; empty when it has no such form.
std::vector<std::string> Words(const toml::node& node) {
  if (const auto* array = node.as_array()) {
    std::vector<std::string> words;
    for (const toml::node& item : *array)
      for (std::string& word : Words(item)) words.push_back(std::move(word));
    return words;
  }
  if (const auto* text = node.as_string()) return {text->get()};
  if (const auto* number = node.as_integer()) return {std::to_string(number->get())};
  if (const auto* flag = node.as_boolean()) return {flag->get() ? "true" : "false"};
  return {};
}

/// One mode of toml++ for the whole binary, the one with exceptions: its two modes share symbols.
Result<toml::table> ParseToml(const std::string& text, const std::string& path) {
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    return Fail(
        Code::kInvalidArgument,
        fmt::format("'{}' line {}: {}", path, error.source().begin.line, error.description()));
  }
}

}  // namespace

std::optional<int> Parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& end) {
    // A word that is no subcommand is the reason why one is missing.
    const std::vector<std::string> left = app.remaining();
    if (!left.empty() && app.get_subcommands().empty() && app.get_require_subcommand_min() > 0)
      return app.exit(CLI::ExtrasError(left)) == 0 ? 0 : kBadUsage;
    return app.exit(end) == 0 ? 0 : kBadUsage;
  } catch (const CLI::ParseError& end) {
    return app.exit(end) == 0 ? 0 : kBadUsage;
  }
  return std::nullopt;
}

Settings::Settings(CLI::App& app, std::string_view section) : app_(app), section_(section) {}

void Settings::Text(std::string* value, const std::string& name, const std::string& help) {
  CLI::Option* option = app_.add_option("--" + name, *value, help)->take_last();
  settings_.push_back({Kind::kText, name, value, option, {}});
}

void Settings::Texts(std::vector<std::string>* value, const std::string& name,
                     const std::string& help) {
  settings_.push_back({Kind::kTexts, name, value, app_.add_option("--" + name, *value, help), {}});
}

void Settings::Number(int64_t* value, const std::string& name, const std::string& help, int64_t low,
                      int64_t high) {
  CLI::Option* option = app_.add_option("--" + name, *value, help)->take_last();
  option->check(CLI::Range(low, high));
  settings_.push_back({Kind::kNumber, name, value, option, {}, low, high});
}

void Settings::Flag(bool* value, const std::string& name, const std::string& help) {
  settings_.push_back({Kind::kFlag, name, value, app_.add_flag("--" + name, *value, help), {}});
}

void Settings::Choice(std::string* value, const std::string& name, const std::string& help,
                      const std::vector<std::string>& choices) {
  CLI::Option* option = app_.add_option("--" + name, *value, help)->take_last();
  option->check(CLI::IsMember(choices));
  settings_.push_back({Kind::kText, name, value, option, choices});
}

Status Settings::Apply(Setting& setting, const std::vector<std::string>& values,
                       std::string_view where) {
  if (setting.kind == Kind::kTexts) {
    *static_cast<std::vector<std::string>*>(setting.value) = values;
    return {};
  }
  if (values.size() != 1)
    return Fail(Code::kInvalidArgument,
                fmt::format("{}: '{}' takes one value", where, setting.name));
  return SetFromText(setting, values[0], where);
}

Status Settings::SetFromText(Setting& setting, std::string_view text, std::string_view where) {
  const auto bad = [&](std::string_view rule) {
    return Fail(Code::kInvalidArgument,
                fmt::format("{}: {} = '{}' {}", where, setting.name, text, rule));
  };
  switch (setting.kind) {
    case Kind::kTexts:
      *static_cast<std::vector<std::string>*>(setting.value) = SplitWords(text);
      return {};
    case Kind::kText: {
      const auto& choices = setting.choices;
      if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
        return bad(fmt::format("is not one of {}", fmt::join(choices, ", ")));
      *static_cast<std::string*>(setting.value) = std::string(text);
      return {};
    }
    case Kind::kNumber: {
      int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size() || number < setting.low ||
          number > setting.high)
        return bad(fmt::format("is not a number in [{}, {}]", setting.low, setting.high));
      *static_cast<int64_t*>(setting.value) = number;
      return {};
    }
    case Kind::kFlag:
      if (text != "true" && text != "false" && text != "1" && text != "0")
        return bad("is neither true nor false");
      *static_cast<bool*>(setting.value) = text == "true" || text == "1";
      return {};
  }
  return {};
}

Status Settings::Resolve(const std::string& config_file) {
  if (!config_file.empty()) {
    UMBEL_ASSIGN(const std::string text, ReadFile(config_file, kFileMax));
    UMBEL_ASSIGN(const toml::table file, ParseToml(text, config_file));
    for (const auto& [section, node] : file) {
      if (section.str() != section_) continue;  // other commands read the same file
      const toml::table* table = node.as_table();
      if (table == nullptr)
        return Fail(Code::kInvalidArgument,
                    fmt::format("'{}': '{}' is not a table", config_file, section_));
      for (const auto& [key, value] : *table) {
        const auto found =
            std::find_if(settings_.begin(), settings_.end(),
                         [&, name = key.str()](const Setting& s) { return s.name == name; });
        if (found == settings_.end())
          return Fail(Code::kInvalidArgument,
                      fmt::format("'{}': [{}] has no setting '{}'; --print-config lists all",
                                  config_file, section_, key.str()));
        if (found->option->count() > 0) continue;
        UMBEL_TRY(Apply(*found, Words(value), config_file));
        found->source = config_file;
      }
    }
  }
  for (Setting& setting : settings_) {
    if (setting.option->count() > 0) {
      setting.source = "flag";
      continue;
    }
    const std::string variable = EnvironmentName(section_, setting.name);
    if (const char* value = std::getenv(variable.c_str())) {
      UMBEL_TRY(SetFromText(setting, value, variable));
      setting.source = variable;
    }
  }
  return {};
}

std::string Settings::Print() const {
  std::string out = fmt::format("[{}]\n", section_);
  for (const Setting& setting : settings_) {
    std::string value;
    switch (setting.kind) {
      case Kind::kText:
        value = Quoted(*static_cast<const std::string*>(setting.value));
        break;
      case Kind::kNumber:
        value = std::to_string(*static_cast<const int64_t*>(setting.value));
        break;
      case Kind::kFlag:
        value = *static_cast<const bool*>(setting.value) ? "true" : "false";
        break;
      case Kind::kTexts: {
        for (const auto& item : *static_cast<const std::vector<std::string>*>(setting.value))
          value += (value.empty() ? "" : ", ") + Quoted(item);
        value = "[" + value + "]";
        break;
      }
    }
    out += fmt::format("{} = {}  # {}\n", setting.name, value, setting.source);
  }
  return out;
}

}  // namespace umbel::cli
