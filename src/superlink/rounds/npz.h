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

}  // namespace umbel::superlink::rounds
