#include "flower/fab_zip.h"

#include <zip.h>

#include <algorithm>
#include <array>

#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::Quote;

constexpr size_t kEndSize = 22;
constexpr size_t kHeaderSize = 46;
constexpr size_t kNameMax = 1024;
constexpr size_t kReadSize = size_t{64} << 10;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kHeaderSignature = 0x02014b50;
constexpr uint32_t kZip64 = 0xffffffff;
constexpr uint32_t kTypeMask = 0170000;
constexpr uint32_t kRegular = 0100000;
constexpr uint32_t kDirectory = 0040000;

uint32_t Little(std::string_view bytes, size_t at, size_t width) {
  uint32_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

tl::unexpected<Error> NotZip(std::string message) {
  return Fail(Code::kDataLoss, "FAB is not a ZIP archive: " + std::move(message));
}

tl::unexpected<Error> BadEntry(std::string_view name, std::string_view rule,
                               Code code = Code::kInvalidArgument) {
  return Fail(code, fmt::format("FAB entry {}: {}", Quote(name, 80), rule));
}

/// A plain relative path: what it names is inside the app's folder on every system, and no two
/// different names can name the same file.
Status CheckName(std::string_view name) {
  if (name.empty()) return BadEntry(name, "has no name");
  if (name.size() > kNameMax) return BadEntry(name, "has a name above 1024 bytes");
  for (const char c : name) {
    if (c == '\\') return BadEntry(name, "has a backslash in its name");
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f)
      return BadEntry(name, "has a control character in its name");
  }
  if (name[0] == '/' || (name.size() > 1 && name[1] == ':'))
    return BadEntry(name, "has an absolute path");
  for (std::string_view rest = name; !rest.empty();) {
    const size_t slash = std::min(rest.find('/'), rest.size());
    const std::string_view part = rest.substr(0, slash);
    if (part == "..") return BadEntry(name, "leaves the app's folder by '..'");
    if (part.empty() || part == ".") return BadEntry(name, "has an empty or '.' path component");
    rest.remove_prefix(std::min(slash + 1, rest.size()));
  }
  return {};
}

/// One header of the central directory.
struct Header {
  std::string_view name;
  uint32_t flags, method, packed, size, disk, mode;
  size_t total;  // bytes of the header with its variable parts
};

Result<Header> ReadHeader(std::string_view directory) {
  if (directory.size() < kHeaderSize || Little(directory, 0, 4) != kHeaderSignature)
    return NotZip("a header of the central directory is broken");
  const size_t name_size = Little(directory, 28, 2);
  Header header{
      .name = {},
      .flags = Little(directory, 8, 2),
      .method = Little(directory, 10, 2),
      .packed = Little(directory, 20, 4),
      .size = Little(directory, 24, 4),
      .disk = Little(directory, 34, 2),
      .mode = Little(directory, 38, 4) >> 16,
      .total = kHeaderSize + name_size + Little(directory, 30, 2) + Little(directory, 32, 2)};
  if (header.total > directory.size()) return NotZip("the central directory is cut off");
  header.name = directory.substr(kHeaderSize, name_size);
  return header;
}

Status CheckHeader(const Header& header) {
  const std::string_view name = header.name;
  UMBEL_TRY(CheckName(name));
  if ((header.flags & 1) != 0) return BadEntry(name, "is encrypted");
  if (header.method != ZIP_CM_STORE && header.method != ZIP_CM_DEFLATE)
    return BadEntry(name,
                    fmt::format("compression method {} is not store or deflate", header.method));
  if (header.packed == kZip64 || header.size == kZip64 || header.disk != 0)
    return BadEntry(name, "uses ZIP64 or a second disk");
  if (header.method == ZIP_CM_STORE && header.packed != header.size)
    return BadEntry(name, "is stored with two different sizes", Code::kDataLoss);
  const uint32_t type = header.mode & kTypeMask;
  const bool folder = name.back() == '/';
  if (type != 0 && type != (folder ? kDirectory : kRegular))
    return BadEntry(name, fmt::format("mode {:o} is no plain file or folder", header.mode));
  if (folder && header.size != 0) return BadEntry(name, "is a folder with content");
  return {};
}

Status CheckDouble(const std::vector<FabEntry>& entries) {
  std::vector<std::string_view> names;
  for (const FabEntry& entry : entries) {
    names.emplace_back(entry.name);
    if (entry.folder) names.back().remove_suffix(1);
  }
  std::sort(names.begin(), names.end());
  const auto repeat = std::adjacent_find(names.begin(), names.end());
  if (repeat != names.end()) return BadEntry(*repeat, "is there twice");
  return {};
}

/// Where one reader looks for the end record is where all do: it must be the last 22 bytes, right
/// after the central directory.
Result<std::vector<FabEntry>> ReadDirectory(std::string_view zip) {
  if (zip.size() < kEndSize) return NotZip(fmt::format("{} bytes are too few", zip.size()));
  const std::string_view end = zip.substr(zip.size() - kEndSize);
  if (Little(end, 0, 4) != kEndSignature || Little(end, 20, 2) != 0)
    return NotZip("no end record in the last 22 bytes");
  const size_t count = Little(end, 10, 2);
  const uint64_t size = Little(end, 12, 4);
  const uint64_t offset = Little(end, 16, 4);
  if (Little(end, 4, 2) != 0 || Little(end, 6, 2) != 0 || Little(end, 8, 2) != count)
    return NotZip("it has more than one disk");
  if (offset + size != zip.size() - kEndSize)
    return NotZip("the central directory does not end at the end record");
  if (count > kFabEntriesMax)
    return Fail(Code::kResourceExhausted,
                fmt::format("FAB: {} entries are more than {}", count, kFabEntriesMax));

  std::vector<FabEntry> entries;
  std::string_view directory = zip.substr(offset, size);
  uint64_t unpacked = 0;
  for (size_t i = 0; i < count; ++i) {
    UMBEL_ASSIGN(const Header header, ReadHeader(directory));
    UMBEL_TRY(CheckHeader(header));
    unpacked += header.size;
    if (unpacked > kFabUnpackedMax)
      return BadEntry(header.name,
                      fmt::format("declares {} bytes, which makes more than {} in all", header.size,
                                  kFabUnpackedMax),
                      Code::kResourceExhausted);
    entries.push_back({std::string(header.name), header.size, header.name.back() == '/'});
    directory.remove_prefix(header.total);
  }
  if (!directory.empty()) return NotZip("the central directory holds more than its entries");
  UMBEL_TRY(CheckDouble(entries));
  return entries;
}

}  // namespace

void FabZip::Discard::operator()(zip* archive) const { zip_discard(archive); }

Status FabZip::OpenArchive(std::string_view bytes) {
  zip_error_t error;
  zip_error_init(&error);
  const auto failed = [&error] {
    std::string text = zip_error_strerror(&error);
    zip_error_fini(&error);
    return NotZip(std::move(text));
  };
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  if (source == nullptr) return failed();
  archive_.reset(zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error));
  if (archive_ == nullptr) {
    zip_source_free(source);
    return failed();
  }
  zip_error_fini(&error);

  if (zip_get_num_entries(archive_.get(), 0) != static_cast<zip_int64_t>(entries_.size()))
    return NotZip("its number of entries is ambiguous");
  for (size_t i = 0; i < entries_.size(); ++i) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    constexpr zip_flags_t kRaw = ZIP_FL_ENC_RAW;
    if (zip_stat_index(archive_.get(), i, kRaw, &stat) != 0 || (stat.valid & ZIP_STAT_NAME) == 0 ||
        (stat.valid & ZIP_STAT_SIZE) == 0 || entries_[i].name != stat.name ||
        entries_[i].size != stat.size)
      return BadEntry(entries_[i].name, "is ambiguous", Code::kDataLoss);
  }
  return {};
}

Result<FabZip> FabZip::Open(std::string_view bytes) {
  FabZip fab;
  UMBEL_ASSIGN(fab.entries_, ReadDirectory(bytes));
  UMBEL_TRY(fab.OpenArchive(bytes));
  return fab;
}

std::optional<size_t> FabZip::Find(std::string_view name) const {
  for (size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].name == name) return i;
  return std::nullopt;
}

Status FabZip::Stream(size_t index, const std::function<void(std::span<const char>)>& sink) const {
  const FabEntry& entry = entries_[index];
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen_index(archive_.get(), index, 0), zip_fclose);
  if (file == nullptr)
    return BadEntry(entry.name, zip_error_strerror(zip_get_error(archive_.get())), Code::kDataLoss);
  std::vector<char> buffer(kReadSize);
  uint64_t total = 0;
  while (true) {
    const zip_int64_t got = zip_fread(file.get(), buffer.data(), buffer.size());
    if (got < 0)
      return BadEntry(entry.name, zip_error_strerror(zip_file_get_error(file.get())),
                      Code::kDataLoss);
    if (got == 0) break;
    total += static_cast<uint64_t>(got);
    if (total > entry.size) break;
    sink({buffer.data(), static_cast<size_t>(got)});
  }
  if (total != entry.size)
    return BadEntry(entry.name, fmt::format("is not the {} bytes it declares", entry.size),
                    Code::kDataLoss);
  return {};
}

Result<std::string> FabZip::Read(size_t index, uint64_t max) const {
  const FabEntry& entry = entries_[index];
  if (entry.size > max)
    return BadEntry(entry.name, fmt::format("declares {} bytes, more than {}", entry.size, max),
                    Code::kResourceExhausted);
  std::string content;
  UMBEL_TRY(Stream(
      index, [&](std::span<const char> bytes) { content.append(bytes.data(), bytes.size()); }));
  return content;
}

}  // namespace umbel::flower
