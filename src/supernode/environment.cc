#include "supernode/environment.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <string_view>

extern char** environ;

namespace umbel::supernode {
namespace {

constexpr std::array<std::string_view, 21> kNames = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "SHELL",
    "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
    // What a manager tells learners.
    "ML_MODEL_FLAVOR", "UMBEL_DATA", "UMBEL_DATA_TAGS", "UMBEL_LEARNER", "MLFLOW_DISABLE_TELEMETRY",
    "DO_NOT_TRACK"};
constexpr std::array<std::string_view, 18> kFronts = {
    "LC_",   "PYTHON",  "FLWR_", "OMP_",  "GOMP_", "KMP_", "MKL_",   "OPENBLAS_", "NUMEXPR_",
    "CUDA_", "NVIDIA_", "HIP_",  "ROCR_", "XLA_",  "JAX_", "TORCH_", "TF_",       "KERAS_"};

bool Passes(std::string_view name) {
  // Flower's own settings, but nothing that lets in where its user may.
  if (name.find("TOKEN") != name.npos || name.find("SECRET") != name.npos ||
      name.find("PASSWORD") != name.npos || name.find("CREDENTIAL") != name.npos)
    return false;
  if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return true;
  return std::any_of(kFronts.begin(), kFronts.end(),
                     [&](std::string_view front) { return name.starts_with(front); });
}

bool IsOf(std::string_view entry, std::string_view name) {
  return entry.substr(0, entry.find('=')) == name;
}

bool IsForInstaller(std::string_view name) {
  if (name.starts_with("UV_")) return !name.starts_with("UV_PUBLISH_");
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower == "http_proxy" || lower == "https_proxy" || lower == "all_proxy" ||
         lower == "no_proxy";
}

/// A folder can be "executed" too, as far as access() goes.
bool IsProgram(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

std::vector<std::string> ClientAppEnvironment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    if (name == "FLWR_TELEMETRY_ENABLED" || name == "FLWR_DISABLE_UPDATE_CHECK") continue;
    if (Passes(name)) out.emplace_back(text);
  }
  out.emplace_back("FLWR_TELEMETRY_ENABLED=0");
  out.emplace_back("FLWR_DISABLE_UPDATE_CHECK=1");
  return out;
}

std::vector<std::string> InstallerEnvironment() {
  std::vector<std::string> out = ClientAppEnvironment();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (IsForInstaller(text.substr(0, text.find('=')))) out.emplace_back(text);
  }
  return out;
}

bool HasVariable(const std::vector<std::string>& environment, std::string_view name) {
  return std::any_of(environment.begin(), environment.end(),
                     [&](const std::string& entry) { return IsOf(entry, name); });
}

void SetVariable(std::vector<std::string>& environment, std::string_view name,
                 std::string_view value) {
  std::erase_if(environment, [&](const std::string& entry) { return IsOf(entry, name); });
  environment.push_back(fmt::format("{}={}", name, value));
}

Result<std::string> FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (IsProgram(name)) return name;
    return Fail(Code::kNotFound, fmt::format("'{}' is not a program that can be run", name));
  }
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string candidate = fmt::format("{}/{}", rest.substr(0, end), name);
    if (end > 0 && IsProgram(candidate)) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return Fail(Code::kNotFound,
              fmt::format("there is no '{}' in PATH ({})", name, path ? path : ""));
}

}  // namespace umbel::supernode
