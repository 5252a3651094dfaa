#include "orchestrator/local/records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace umbel::orchestrator {
namespace {

using nlohmann::json;

constexpr size_t kRecordBytes = 2048;
constexpr size_t kDetailBytesMax = 1024;

std::string Cbor(const json& document) {
  // Not JSON: arguments and variables are bytes, and need not be UTF-8.
  const std::vector<uint8_t> bytes = json::to_cbor(document);
  return {bytes.begin(), bytes.end()};
}

template <typename F>
auto FromCbor(const std::string& path, F&& convert) -> Result<decltype(convert(json()))> {
  UMBEL_ASSIGN(const std::string text, ReadFile(path));
  try {
    return convert(json::from_cbor(text));
  } catch (const json::exception& error) {
    return Fail(Code::kDataLoss, fmt::format("'{}' is damaged: {}", path, error.what()));
  }
}

Status SyncFolder(const std::string& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return Fail(SystemError("sync", folder));
  return {};
}

}  // namespace

Status WriteWanted(const std::string& folder, const InstanceSpec& spec) {
  const json document = {{"name", spec.name},
                         {"arguments", spec.arguments},
                         {"environment", spec.environment},
                         {"directory", spec.directory},
                         {"memory_bytes", spec.resources.memory_bytes},
                         {"cpu_millicores", spec.resources.cpu_millicores},
                         {"storage_bytes", spec.resources.storage_bytes},
                         {"addons", spec.addons},
                         {"node", spec.node},
                         {"one_shot", spec.one_shot},
                         {"network", spec.network},
                         {"isolated", spec.isolated},
                         {"shown", spec.shown},
                         {"writable", spec.writable},
                         {"reached", spec.reached}};
  const std::string path = folder + "/wanted";
  const std::string temporary = path + ".tmp";
  const std::string text = Cbor(document);
  {
    const Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) return Fail(SystemError("create", temporary));
    for (size_t done = 0; done < text.size();) {
      const ssize_t n = ::write(fd.get(), text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(SystemError("write", temporary));
      done += static_cast<size_t>(n);
    }
    if (::fsync(fd.get()) != 0) return Fail(SystemError("sync", temporary));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Fail(SystemError("rename", temporary));
  return SyncFolder(folder);
}

Result<InstanceSpec> ReadWanted(const std::string& folder) {
  return FromCbor(folder + "/wanted", [](const json& document) {
    InstanceSpec spec;
    document.at("name").get_to(spec.name);
    document.at("arguments").get_to(spec.arguments);
    document.at("environment").get_to(spec.environment);
    document.at("directory").get_to(spec.directory);
    document.at("memory_bytes").get_to(spec.resources.memory_bytes);
    document.at("cpu_millicores").get_to(spec.resources.cpu_millicores);
    document.at("storage_bytes").get_to(spec.resources.storage_bytes);
    document.at("addons").get_to(spec.addons);
    document.at("node").get_to(spec.node);
    document.at("one_shot").get_to(spec.one_shot);
    document.at("network").get_to(spec.network);
    // Records of earlier versions have none of these.
    spec.isolated = document.value("isolated", false);
    spec.shown = document.value("shown", spec.shown);
    spec.writable = document.value("writable", spec.writable);
    spec.reached = document.value("reached", spec.reached);
    return spec;
  });
}

Status RemoveWanted(const std::string& folder) {
  const std::string path = folder + "/wanted";
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Fail(SystemError("remove", path));
  return SyncFolder(folder);
}

Status WriteState(const std::string& folder, const KeptState& state) {
  return WriteFileAtomic(folder + "/state", Cbor({{"node", state.node},
                                                  {"state", static_cast<int>(state.state)},
                                                  {"detail", state.detail},
                                                  {"last_end", state.last_end},
                                                  {"starts", state.starts},
                                                  {"failures", state.failures},
                                                  {"over", state.over},
                                                  {"since", state.since.time_since_epoch().count()},
                                                  {"pid", state.pid},
                                                  {"start_ticks", state.start_ticks},
                                                  {"boot", state.boot}}));
}

Result<KeptState> ReadState(const std::string& folder) {
  return FromCbor(folder + "/state", [](const json& document) {
    KeptState state;
    document.at("node").get_to(state.node);
    state.state = static_cast<InstanceState>(
        std::clamp(document.at("state").get<int>(), 0, static_cast<int>(InstanceState::kFailed)));
    document.at("detail").get_to(state.detail);
    document.at("last_end").get_to(state.last_end);
    document.at("starts").get_to(state.starts);
    document.at("failures").get_to(state.failures);
    document.at("over").get_to(state.over);
    state.since = WallTime(Micros(document.at("since").get<int64_t>()));
    document.at("pid").get_to(state.pid);
    document.at("start_ticks").get_to(state.start_ticks);
    document.at("boot").get_to(state.boot);
    return state;
  });
}

Result<RecordFile> RecordFile::Create(const std::string& folder) {
  const std::string path = folder + "/record";
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return Fail(SystemError("create", path));
  RecordFile file(std::move(fd));
  UMBEL_TRY(file.Write({}));
  return file;
}

Status RecordFile::Write(const Record& record) {
  std::string text = fmt::format("{} {} {} {} {} {} {}", static_cast<int>(record.phase), record.pid,
                                 record.start_ticks, static_cast<int>(record.code), record.status,
                                 record.told_to ? 1 : 0, record.detail.substr(0, kDetailBytesMax));
  std::replace(text.begin(), text.end(), '\n', ' ');
  text += '\n';
  text.resize(kRecordBytes, ' ');
  // In one write: whoever is killed meanwhile has written all of it or nothing.
  if (::pwrite(fd_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return Fail(SystemError("write", "record"));
  return {};
}

Record ReadRecord(const std::string& folder) {
  const auto text = ReadFile(folder + "/record", 2 * kRecordBytes);
  const size_t end = text.ok() ? text->find('\n') : std::string::npos;
  if (end == std::string::npos) return {};
  int phase = 0, code = 0, status = 0, told_to = 0, used = 0;
  long long pid = 0;
  unsigned long long ticks = 0;
  if (std::sscanf(text->c_str(), "%d %lld %llu %d %d %d %n", &phase, &pid, &ticks, &code, &status,
                  &told_to, &used) != 6 ||
      phase < 0 || phase > static_cast<int>(Phase::kEnded))
    return {};
  Record record;
  record.phase = static_cast<Phase>(phase);
  record.pid = static_cast<pid_t>(pid);
  record.start_ticks = ticks;
  record.code = static_cast<Code>(code);
  record.status = status;
  record.told_to = told_to != 0;
  if (static_cast<size_t>(used) < end)
    record.detail = text->substr(static_cast<size_t>(used), end - static_cast<size_t>(used));
  return record;
}

void RemoveRecord(const std::string& folder) { ::unlink((folder + "/record").c_str()); }

const std::string& BootId() {
  static const std::string id = [] {
    const auto text = ReadFile("/proc/sys/kernel/random/boot_id", 256);
    return text.ok() ? text->substr(0, text->find('\n')) : std::string("unknown");
  }();
  return id;
}

}  // namespace umbel::orchestrator
