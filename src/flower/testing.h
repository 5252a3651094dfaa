// FABs for tests, good and bad. Functions; safe from any thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/sha256.h"

namespace umbel::flower::testing {

using std::string_literals::operator""s;

inline std::string Little(uint64_t value, size_t width) {
  std::string bytes;
  for (size_t i = 0; i < width; ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

inline uint32_t Crc32(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320U : 0);
  }
  return ~crc;
}

/// One entry as the central directory and the local header tell it; they can be made to lie.
struct Entry {
  std::string name;
  std::string content;
  uint32_t mode = 0100600;
  uint32_t method = 0;
  uint32_t flags = 0;
  std::optional<uint64_t> declared = {};
  std::optional<std::string> local_name = {};
  std::optional<uint32_t> crc = {};
};

inline std::string Join(std::initializer_list<std::string> parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

/// A ZIP writer without manners. Content goes in as it is, whatever the method.
inline std::string MakeZip(const std::vector<Entry>& entries) {
  std::string zip;
  std::string directory;
  for (const Entry& entry : entries) {
    const std::string& local = entry.local_name.value_or(entry.name);
    const std::string middle =
        Join({Little(entry.flags, 2), Little(entry.method, 2), Little(0x59410000, 4),
              Little(entry.crc.value_or(Crc32(entry.content)), 4), Little(entry.content.size(), 4),
              Little(entry.declared.value_or(entry.content.size()), 4)});
    directory += Join({"PK\1\2"s, Little(0x314, 2), Little(20, 2), middle,
                       Little(entry.name.size(), 2), Little(0, 8),
                       Little(uint64_t{entry.mode} << 16, 4), Little(zip.size(), 4), entry.name});
    zip += Join({"PK\3\4"s, Little(20, 2), middle, Little(local.size(), 2), Little(0, 2), local,
                 entry.content});
  }
  const std::string count = Little(entries.size(), 2);
  return Join({zip, directory, "PK\5\6"s, Little(0, 4), count, count, Little(directory.size(), 4),
               Little(zip.size(), 4), Little(0, 2)});
}

inline constexpr std::string_view kProject = R"(
[project]
name = "toy"
version = "1.0.0"

[tool.flwr.app]
publisher = "umbel"

[tool.flwr.app.components]
serverapp = "toy.server_app:app"
clientapp = "toy.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 3
lr = 0.1
verbose = true
a.b.text = "x"
)";

inline std::vector<Entry> GoodEntries() {
  const std::string source = "app = 1\n";
  return {{"pyproject.toml", std::string(kProject)},
          {"toy/server_app.py", source},
          {".info/CONTENT", fmt::format("pyproject.toml,{},{}\ntoy/server_app.py,{},64",
                                        tensor::Sha256Of(kProject).Hex(), kProject.size() * 8,
                                        tensor::Sha256Of(source).Hex())}};
}

}  // namespace umbel::flower::testing
