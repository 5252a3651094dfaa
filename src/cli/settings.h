// One table of settings for a command: each has a flag, a TOML key and an environment variable.
// Flag > environment > TOML file > default. Used once, at start, by one thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace umbel::cli {

inline constexpr int kBadUsage = 2;

/// Reads the command line. The status to end with: 0 after --help, kBadUsage after what is wrong
/// with it was said; nullopt: go on.
std::optional<int> Parse(CLI::App& app, int argc, char** argv);

class Settings {
 public:
  /// section  table of the TOML file; environment variables begin UMBEL_<SECTION>_.
  Settings(CLI::App& app, std::string_view section);

  /// Of a flag that is given twice the last counts, as with Flower's commands; `Texts` takes all.
  void Text(std::string* value, const std::string& name, const std::string& help);
  void Texts(std::vector<std::string>* value, const std::string& name, const std::string& help);
  void Number(int64_t* value, const std::string& name, const std::string& help, int64_t low,
              int64_t high);
  void Flag(bool* value, const std::string& name, const std::string& help);
  void Choice(std::string* value, const std::string& name, const std::string& help,
              const std::vector<std::string>& choices);

  /// After the command line is parsed: fills in what the environment and the file say.
  /// errors  kInvalidArgument: an unknown key, or a value of the wrong kind; the message names it.
  Status Resolve(const std::string& config_file);
  /// Every setting as TOML, with where its value came from.
  std::string Print() const;

 private:
  enum class Kind { kText, kTexts, kNumber, kFlag };
  struct Setting {
    Kind kind;
    std::string name;  // as the flag, without dashes in front
    void* value;
    CLI::Option* option;
    std::vector<std::string> choices;
    int64_t low = 0;
    int64_t high = 0;
    std::string source = "default";
  };

  Status SetFromText(Setting& setting, std::string_view text, std::string_view where);
  Status Apply(Setting& setting, const std::vector<std::string>& values, std::string_view where);

  CLI::App& app_;
  std::string section_;
  std::vector<Setting> settings_;
};

}  // namespace umbel::cli
