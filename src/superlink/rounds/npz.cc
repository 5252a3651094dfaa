#include "superlink/rounds/npz.h"

#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "base/file.h"

namespace umbel::superlink::rounds {
namespace {

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

std::string ModelFolder(const std::string& models, RunId run_id) {
  return fmt::format("{}/{}", models, run_id);
}

std::string ModelPath(const std::string& models, RunId run_id, uint32_t round) {
  return fmt::format("{}/round-{}.npz", ModelFolder(models, run_id), round);
}

}  // namespace umbel::superlink::rounds
