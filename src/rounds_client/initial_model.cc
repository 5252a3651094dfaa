#include "rounds_client/initial_model.h"

#include <zip.h>

#include <filesystem>
#include <vector>

#include "tensor/npy.h"
#include "tensor/quote.h"

namespace umbel::rounds_client {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct Close {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

Result<flower::ArrayRef> ReadEntry(zip_t* archive, zip_uint64_t index, flower::Spool& spool) {
  const std::unique_ptr<zip_file_t, Close> file(zip_fopen_index(archive, index, 0));
  if (!file) return Fail(Code::kInvalidArgument, zip_error_strerror(zip_get_error(archive)));
  flower::ArrayRef array;
  array.stype = "numpy.ndarray";
  std::string head;
  std::optional<tensor::NpyHead> npy;
  std::vector<char> piece(kPiece);
  for (;;) {
    const zip_int64_t got = zip_fread(file.get(), piece.data(), piece.size());
    if (got < 0)
      return Fail(Code::kInvalidArgument, zip_error_strerror(zip_file_get_error(file.get())));
    if (got == 0) break;
    const std::span<const char> bytes(piece.data(), static_cast<size_t>(got));
    if (!npy) {
      head.append(bytes.data(), bytes.size());
      UMBEL_ASSIGN(npy, tensor::ParseNpyHead(head));
    }
    UMBEL_ASSIGN(const flower::FileRange range, spool.Append(bytes));
    array.pieces.push_back(range);
  }
  if (!npy) return Fail(Code::kInvalidArgument, "it ends within its NPY head");
  if (array.size() != npy->data_offset + npy->element_count * npy->item_size)
    return Fail(Code::kInvalidArgument, "its data is not as long as its NPY head says");
  UMBEL_ASSIGN(array.dtype, tensor::DtypeName(npy->dtype));
  for (const uint64_t size : npy->shape) array.shape.push_back(static_cast<int64_t>(size));
  return array;
}

}  // namespace

Result<flower::ArrayRecord> ReadNpz(const std::string& path, flower::Spool& spool) {
  if (!std::filesystem::exists(path))
    return Fail(Code::kNotFound, fmt::format("there is no file '{}'", path));
  int code = 0;
  const std::unique_ptr<zip_t, Discard> archive(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (!archive)
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' is not an .npz file, as np.savez writes it", path));
  flower::ArrayRecord record;
  const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    const char* raw = zip_get_name(archive.get(), index, 0);
    std::string name = raw == nullptr ? "" : raw;
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    auto array = ReadEntry(archive.get(), index, spool);
    if (!array.ok())
      return Fail(array.error().code, fmt::format("'{}': array {}: {}", path, tensor::Quote(name),
                                                  array.error().message));
    record.emplace_back(std::move(name), *std::move(array));
  }
  if (record.empty()) return Fail(Code::kInvalidArgument, fmt::format("'{}' has no arrays", path));
  return record;
}

}  // namespace umbel::rounds_client
