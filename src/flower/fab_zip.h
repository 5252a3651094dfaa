// The ZIP archive of a FAB, read defensively: the central directory is checked by hand before
// libzip sees a byte, so that libzip, Python's zipfile at the sites and we agree on what is in it.
// A FabZip belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct zip;

namespace umbel::flower {

struct FabEntry {
  std::string name;
  uint64_t size = 0;  // bytes, uncompressed, as declared
  bool folder = false;
};

inline constexpr size_t kFabEntriesMax = 10'000;
inline constexpr uint64_t kFabUnpackedMax = uint64_t{256} << 20;

class FabZip {
 public:
  /// bytes   the archive; must outlive the result.
  /// errors  kDataLoss: not a ZIP archive, or one that two readers could read differently;
  ///         kInvalidArgument: an entry whose name leaves the app's folder, is double, or is no
  ///         plain file or folder; kResourceExhausted: more entries or declared bytes than allowed.
  static Result<FabZip> Open(std::string_view bytes);

  const std::vector<FabEntry>& entries() const { return entries_; }
  std::optional<size_t> Find(std::string_view name) const;

  /// Streams an entry's bytes into `sink`; never more than it declares.
  /// errors  kDataLoss: broken data or checksum, or another size than declared.
  Status Stream(size_t index, const std::function<void(std::span<const char>)>& sink) const;
  /// errors  also kResourceExhausted: it declares more than `max` bytes.
  Result<std::string> Read(size_t index, uint64_t max) const;

 private:
  struct Discard {
    void operator()(zip* archive) const;
  };

  Status OpenArchive(std::string_view bytes);

  std::vector<FabEntry> entries_;
  std::unique_ptr<zip, Discard> archive_;
};

}  // namespace umbel::flower
