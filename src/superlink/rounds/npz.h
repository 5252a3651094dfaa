// A model as NumPy's .npz: a ZIP file of NPY files, stored as they are. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "superlink/rounds/model.h"

namespace umbel::superlink::rounds {

/// Writes a new file beside `path` and then renames it: `path` is whole or not there.
/// cost    one pass over the arrays.
/// errors  kResourceExhausted: the disk is full; kUnavailable; kDataLoss: an array cannot be read.
Status WriteNpz(const std::string& path, const std::vector<ModelArray>& arrays);

/// Where a run's models are kept, and that of one round: paths that may not be there.
/// models  the SuperLink's folder for those of all runs.
std::string ModelFolder(const std::string& models, RunId run_id);
std::string ModelPath(const std::string& models, RunId run_id, uint32_t round);

}  // namespace umbel::superlink::rounds
