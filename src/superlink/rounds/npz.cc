#include "superlink/rounds/npz.h"

#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/file.h"

namespace umbel::superlink::rounds {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

/// An array's NPY file as libzip reads it.
struct Reader {
  const ArrayFile* file = nullptr;
  uint64_t at = 0;
  Status status;
  zip_error_t error{};
};

zip_int64_t Serve(void* user, void* data, zip_uint64_t length, zip_source_cmd_t command) {
  Reader& reader = *static_cast<Reader*>(user);
  switch (command) {
    case ZIP_SOURCE_OPEN:
      reader.at = 0;
      return 0;
    case ZIP_SOURCE_READ: {
      const auto take = std::min<uint64_t>(length, reader.file->size() - reader.at);
      reader.status =
          reader.file->Read(reader.at, {static_cast<char*>(data), static_cast<size_t>(take)});
      if (!reader.status.ok()) {
        zip_error_set(&reader.error, ZIP_ER_READ, 0);
        return -1;
      }
      reader.at += take;
      return static_cast<zip_int64_t>(take);
    }
    case ZIP_SOURCE_STAT: {
      auto* stat = static_cast<zip_stat_t*>(data);
      zip_stat_init(stat);
      stat->valid = ZIP_STAT_SIZE;
      stat->size = reader.file->size();
      return sizeof *stat;
    }
    case ZIP_SOURCE_ERROR:
      return zip_error_to_data(&reader.error, data, length);
    case ZIP_SOURCE_SUPPORTS:
      return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE,
                                            ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE, -1);
    default:
      return 0;
  }
}

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct Close {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Entry = std::unique_ptr<zip_file_t, Close>;

Result<Entry> OpenEntry(zip_t* archive, size_t index) {
  Entry entry(zip_fopen_index(archive, index, 0));
  if (!entry) return Fail(Code::kInvalidArgument, zip_error_strerror(zip_get_error(archive)));
  return entry;
}

Result<size_t> ReadEntry(zip_file_t* entry, std::span<char> out) {
  const zip_int64_t got = zip_fread(entry, out.data(), out.size());
  if (got < 0) return Fail(Code::kInvalidArgument, zip_error_strerror(zip_file_get_error(entry)));
  return static_cast<size_t>(got);
}

tl::unexpected<Error> Cannot(const std::string& path, zip_error_t* error) {
  const bool full = zip_error_code_system(error) == ENOSPC;
  return Fail(full ? Code::kResourceExhausted : Code::kUnavailable,
              fmt::format("cannot write '{}': {}", path, zip_error_strerror(error)));
}

}  // namespace

Status WriteNpz(const std::string& path, const std::vector<ModelArray>& arrays) {
  const std::string fresh = path + ".new";
  int code = 0;
  std::unique_ptr<zip_t, Discard> archive(
      zip_open(fresh.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code));
  if (!archive) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    auto failed = Cannot(path, &error);
    zip_error_fini(&error);
    return failed;
  }
  std::vector<std::unique_ptr<Reader>> readers;
  for (const ModelArray& array : arrays) {
    auto reader = std::make_unique<Reader>();
    reader->file = &array.file;
    zip_source_t* source = zip_source_function(archive.get(), Serve, reader.get());
    const std::string name = array.name + ".npy";
    const zip_int64_t index =
        source == nullptr ? -1
                          : zip_file_add(archive.get(), name.c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0 || zip_set_file_compression(archive.get(), static_cast<zip_uint64_t>(index),
                                              ZIP_CM_STORE, 0) != 0) {
      if (index < 0 && source != nullptr) zip_source_free(source);
      return Cannot(path, zip_get_error(archive.get()));
    }
    readers.push_back(std::move(reader));
  }
  if (arrays.empty()) {
    // libzip writes no file for an archive without entries; NumPy reads these 22 bytes as one.
    archive.reset();
    static constexpr std::string_view kEmpty("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22);
    return WriteFileAtomic(path, kEmpty);
  }
  if (zip_close(archive.get()) != 0) {
    for (const auto& reader : readers)
      if (!reader->status.ok()) return reader->status;
    return Cannot(path, zip_get_error(archive.get()));
  }
  static_cast<void>(archive.release());
  std::error_code error;
  std::filesystem::rename(fresh, path, error);
  if (error)
    return Fail(Code::kUnavailable, fmt::format("cannot rename '{}': {}", fresh, error.message()));
  return {};
}

struct NpzFile::Archive {
  std::unique_ptr<zip_t, Discard> zip;
};

NpzFile::NpzFile() = default;
NpzFile::~NpzFile() = default;
NpzFile::NpzFile(NpzFile&&) noexcept = default;

Result<NpzFile> NpzFile::Open(const std::string& path) {
  if (!std::filesystem::exists(path))
    return Fail(Code::kNotFound, fmt::format("there is no file '{}'", path));
  int code = 0;
  NpzFile file;
  file.archive_ = std::make_unique<Archive>();
  file.archive_->zip.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
  zip_t* zip = file.archive_->zip.get();
  if (zip == nullptr)
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' is not an .npz file, as np.savez writes it", path));
  const zip_int64_t count = zip_get_num_entries(zip, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* raw = zip_get_name(zip, static_cast<zip_uint64_t>(i), 0);
    std::string name = raw == nullptr ? "" : raw;
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    file.names_.push_back(std::move(name));
  }
  return file;
}

Result<tensor::NpyHead> NpzFile::Read(size_t array, const Take& take) const {
  UMBEL_ASSIGN(const Entry entry, OpenEntry(archive_->zip.get(), array));
  std::string head;
  std::optional<tensor::NpyHead> npy;
  uint64_t size = 0;
  std::vector<char> piece(kPiece);
  for (;;) {
    UMBEL_ASSIGN(const size_t got, ReadEntry(entry.get(), piece));
    if (got == 0) break;
    const std::span<const char> bytes(piece.data(), got);
    if (!npy) {
      head.append(bytes.data(), bytes.size());
      UMBEL_ASSIGN(npy, tensor::ParseNpyHead(head));
    }
    size += got;
    UMBEL_TRY(take(bytes));
  }
  if (!npy) return Fail(Code::kInvalidArgument, "it ends within its NPY head");
  if (size != npy->data_offset + npy->element_count * npy->item_size)
    return Fail(Code::kInvalidArgument, "its data is not as long as its NPY head says");
  return *std::move(npy);
}

Result<tensor::NpyHead> NpzFile::ReadHead(size_t array) const {
  UMBEL_ASSIGN(const Entry entry, OpenEntry(archive_->zip.get(), array));
  std::string head;
  for (;;) {
    char piece[1024];
    UMBEL_ASSIGN(const size_t got, ReadEntry(entry.get(), piece));
    head.append(piece, got);
    UMBEL_ASSIGN(auto npy, tensor::ParseNpyHead(head));
    if (npy) return *std::move(npy);
    if (got == 0) return Fail(Code::kInvalidArgument, "it ends within its NPY head");
  }
}

std::string ModelFolder(const std::string& models, RunId run_id) {
  return fmt::format("{}/{}", models, run_id);
}

std::string ModelPath(const std::string& models, RunId run_id, uint32_t round) {
  return fmt::format("{}/round-{}.npz", ModelFolder(models, run_id), round);
}

}  // namespace umbel::superlink::rounds
