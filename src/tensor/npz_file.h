// NumPy's .npz, read: a ZIP file of NPY files.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/npy.h"

namespace umbel::tensor {

/// An .npz file, read entry by entry. One thread.
class NpzFile {
 public:
  /// errors  kNotFound; kInvalidArgument: not an .npz file.
  static Result<NpzFile> Open(const std::string& path);
  ~NpzFile();
  NpzFile(NpzFile&&) noexcept;

  /// Of the arrays, as np.savez was given them.
  const std::vector<std::string>& names() const { return names_; }
  /// An array's NPY file, in pieces of at most 1 MiB, its head among them.
  /// errors  kInvalidArgument: the ZIP file is broken, or this is no NPY file of the length that
  /// its
  ///         head says; what `take` returns.
  using Take = std::function<Status(std::span<const char>)>;
  Result<NpyHead> Read(size_t array, const Take& take) const;
  /// The head alone. errors  as Read's.
  Result<NpyHead> ReadHead(size_t array) const;

 private:
  struct Archive;
  NpzFile();

  std::unique_ptr<Archive> archive_;
  std::vector<std::string> names_;
};

}  // namespace umbel::tensor
