#include "tensor/npz_file.h"

#include <zip.h>

#include <filesystem>
#include <optional>

namespace umbel::tensor {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

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

}  // namespace

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

Result<NpyHead> NpzFile::Read(size_t array, const Take& take) const {
  UMBEL_ASSIGN(const Entry entry, OpenEntry(archive_->zip.get(), array));
  std::string head;
  std::optional<NpyHead> npy;
  uint64_t size = 0;
  std::vector<char> piece(kPiece);
  for (;;) {
    UMBEL_ASSIGN(const size_t got, ReadEntry(entry.get(), piece));
    if (got == 0) break;
    const std::span<const char> bytes(piece.data(), got);
    if (!npy) {
      head.append(bytes.data(), bytes.size());
      UMBEL_ASSIGN(npy, ParseNpyHead(head));
    }
    size += got;
    UMBEL_TRY(take(bytes));
  }
  if (!npy) return Fail(Code::kInvalidArgument, "it ends within its NPY head");
  if (size != npy->data_offset + npy->element_count * npy->item_size)
    return Fail(Code::kInvalidArgument, "its data is not as long as its NPY head says");
  return *std::move(npy);
}

Result<NpyHead> NpzFile::ReadHead(size_t array) const {
  UMBEL_ASSIGN(const Entry entry, OpenEntry(archive_->zip.get(), array));
  std::string head;
  for (;;) {
    char piece[1024];
    UMBEL_ASSIGN(const size_t got, ReadEntry(entry.get(), piece));
    head.append(piece, got);
    UMBEL_ASSIGN(auto npy, ParseNpyHead(head));
    if (npy) return *std::move(npy);
    if (got == 0) return Fail(Code::kInvalidArgument, "it ends within its NPY head");
  }
}

}  // namespace umbel::tensor
