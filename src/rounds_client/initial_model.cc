#include "rounds_client/initial_model.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/file.h"
#include "tensor/npy.h"
#include "tensor/npz_file.h"
#include "tensor/quote.h"
#include "tensor/safetensors.h"

namespace umbel::rounds_client {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

Status Append(flower::Spool& spool, std::span<const char> bytes, flower::ArrayRef& array) {
  UMBEL_ASSIGN(const flower::FileRange range, spool.Append(bytes));
  array.pieces.push_back(range);
  return {};
}

Status Describe(std::string_view descr, const std::vector<uint64_t>& shape,
                flower::ArrayRef& array) {
  array.stype = "numpy.ndarray";
  UMBEL_ASSIGN(array.dtype, tensor::DtypeName(descr));
  for (const uint64_t size : shape) array.shape.push_back(static_cast<int64_t>(size));
  return {};
}

Result<flower::ArrayRecord> ReadNpz(const std::string& path, flower::Spool& spool) {
  UMBEL_ASSIGN(const auto file, tensor::NpzFile::Open(path));
  flower::ArrayRecord record;
  for (size_t a = 0; a < file.names().size(); ++a) {
    flower::ArrayRef array;
    const auto npy =
        file.Read(a, [&](std::span<const char> bytes) { return Append(spool, bytes, array); });
    const Status read = npy.ok() ? Describe(npy->dtype, npy->shape, array) : Fail(npy.error());
    if (!read.ok())
      return Fail(read.error().code,
                  fmt::format("'{}': array {}: {}", path, tensor::Quote(file.names()[a]),
                              read.error().message));
    record.emplace_back(file.names()[a], std::move(array));
  }
  return record;
}

/// errors  kDataLoss: the file has become shorter.
Status ReadAt(int fd, const std::string& path, uint64_t offset, std::span<char> out) {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Fail(SystemError("read", path));
    if (got == 0) return Fail(Code::kDataLoss, fmt::format("'{}' ends while it is read", path));
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

Result<flower::ArrayRecord> ReadSafetensors(const std::string& path, flower::Spool& spool) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat about {};
  if (!file.valid() || ::fstat(file.get(), &about) != 0) return Fail(SystemError("open", path));
  const auto wrong = [&](const Error& error) {
    return Fail(error.code, fmt::format("'{}': {}", path, error.message));
  };
  const auto size = static_cast<uint64_t>(about.st_size);
  std::string length(static_cast<size_t>(std::min<uint64_t>(size, tensor::kSafetensorsLength)), 0);
  UMBEL_TRY(ReadAt(file.get(), path, 0, length));
  const auto head_size = tensor::SafetensorsHeadSize(length, size);
  if (!head_size.ok()) return wrong(head_size.error());
  std::string head(static_cast<size_t>(*head_size), '\0');
  UMBEL_TRY(ReadAt(file.get(), path, length.size(), head));
  const uint64_t data = length.size() + head.size();
  const auto arrays = tensor::ParseSafetensorsHead(head, size - data);
  if (!arrays.ok()) return wrong(arrays.error());
  flower::ArrayRecord record;
  std::vector<char> piece(kPiece);
  for (const tensor::SafeTensor& from : *arrays) {
    flower::ArrayRef array;
    UMBEL_TRY(Describe(from.descr, from.shape, array));
    UMBEL_TRY(Append(spool, tensor::MakeNpyHead(from.descr, from.shape), array));
    for (uint64_t at = 0; at < from.size;) {
      const auto bytes =
          std::span(piece).first(static_cast<size_t>(std::min<uint64_t>(kPiece, from.size - at)));
      UMBEL_TRY(ReadAt(file.get(), path, data + from.begin + at, bytes));
      UMBEL_TRY(Append(spool, bytes, array));
      at += bytes.size();
    }
    record.emplace_back(from.name, std::move(array));
  }
  return record;
}

}  // namespace

bool IsSafetensors(std::string_view path) { return path.ends_with(".safetensors"); }

Result<flower::ArrayRecord> ReadModel(const std::string& path, flower::Spool& spool) {
  UMBEL_ASSIGN(flower::ArrayRecord record,
               IsSafetensors(path) ? ReadSafetensors(path, spool) : ReadNpz(path, spool));
  if (record.empty()) return Fail(Code::kInvalidArgument, fmt::format("'{}' has no arrays", path));
  return record;
}

}  // namespace umbel::rounds_client
