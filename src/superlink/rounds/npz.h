// A model as NumPy's .npz: a ZIP file of NPY files, stored as they are. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "superlink/rounds/model.h"

namespace umbel::superlink::rounds {

/// Writes a new file beside `path` and then renames it: `path` is whole or not there.
/// cost    one pass over the arrays.
/// errors  kResourceExhausted: the disk is full; kUnavailable; kDataLoss: an array cannot be read.
Status WriteNpz(const std::string& path, const std::vector<ModelArray>& arrays);

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
  Result<tensor::NpyHead> Read(size_t array, const Take& take) const;
  /// The head alone. errors  as Read's.
  Result<tensor::NpyHead> ReadHead(size_t array) const;

 private:
  struct Archive;
  NpzFile();

  std::unique_ptr<Archive> archive_;
  std::vector<std::string> names_;
};

/// Where a run's models are kept, and that of one round: paths that may not be there.
/// models  the SuperLink's folder for those of all runs.
std::string ModelFolder(const std::string& models, RunId run_id);
std::string ModelPath(const std::string& models, RunId run_id, uint32_t round);

}  // namespace umbel::superlink::rounds
