#include "superlink/rounds/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "superlink/rounds/model.h"
#include "tensor/npz_file.h"
#include "tensor/quote.h"
#include "tensor/safetensors.h"

namespace umbel::superlink::rounds {
namespace {

Result<Fd> MakeUnnamed(const std::string& folder) {
  Fd file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.valid()) return file;
  std::string path = folder + "/model-XXXXXX";  // a file system without such files
  file = Fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!file.valid()) return Fail(SystemError("create a file in", folder));
  ::unlink(path.c_str());
  return file;
}

Status WriteAll(int fd, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Fail(SystemError("write", "a safetensors file"));
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

}  // namespace

Result<Fd> MakeSafetensors(const std::string& npz, const std::string& folder) {
  UMBEL_ASSIGN(const tensor::NpzFile model, tensor::NpzFile::Open(npz));
  const auto cannot = [](const std::string& name, std::string_view why) {
    return Fail(Code::kFailedPrecondition,
                fmt::format("safetensors cannot hold array {}, which is {}: take the .npz file",
                            tensor::Quote(name), why));
  };
  std::vector<tensor::SafeTensor> arrays;
  std::vector<size_t> heads;
  for (size_t a = 0; a < model.names().size(); ++a) {
    UMBEL_ASSIGN(tensor::NpyHead npy, model.ReadHead(a));
    if (!IsPlain(npy)) return cannot(model.names()[a], "big-endian or in Fortran order");
    // One byte has no order, whatever the head says.
    if (npy.item_size == 1 && !npy.dtype.empty()) npy.dtype[0] = '|';
    heads.push_back(npy.data_offset);
    arrays.push_back({model.names()[a], npy.dtype, std::move(npy.shape), 0, 0});
  }
  const auto head = tensor::MakeSafetensorsHead(arrays);
  if (!head.ok())
    return Fail(Code::kFailedPrecondition, head.error().message + ": take the .npz file");
  UMBEL_ASSIGN(Fd file, MakeUnnamed(folder));
  UMBEL_TRY(WriteAll(file.get(), *head));
  for (size_t a = 0; a < arrays.size(); ++a) {
    size_t skip = heads[a];
    UMBEL_ASSIGN(const auto npy, model.Read(a, [&](std::span<const char> bytes) {
      const size_t over = std::min(skip, bytes.size());
      skip -= over;
      return WriteAll(file.get(), bytes.subspan(over));
    }));
    static_cast<void>(npy);
  }
  return file;
}

}  // namespace umbel::superlink::rounds
